"""Entries of the store as one file, for nodes that reach nobody: a tar of plain files, compressed, in a fixed order.

First says FORMAT what it is; then come, entry by entry, `<digest>/` key.json, manifest.json, provenance.json, build.log
and the modules. What comes from outside is read by its headers alone, each size bounded before it is read, and nothing
is published before all of it was compared with its manifest, and more than the store may hold is not unpacked.
"""

import fcntl
import glob
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NoReturn

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.modules import entry, parse_document, trust
from driverctr.modules.entry import BUILD_LOG, DOCUMENTS, Entry, Refused
from driverctr.modules.key import Key
from driverctr.modules.store import Store, check

FORMAT = "driverctr-store.json"
SCHEMA = 1
BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 20

LOG_LIMIT = 64 << 20
MODULE_LIMIT = 1 << 30
ENTRY_LIMIT = 1000
"""Bytes of a build log and of a module, and entries, beyond which a file is not believed; nvidia.ko has 65 MB."""

TAIL_LIMIT = 2 * tarfile.RECORDSIZE
"""Bytes of zeros after the last file (tar(5): two blocks, filled up to a record)."""


def write(entries: Sequence[Entry], file: Path) -> None:
    """Write entries to a file, whole or not at all, after every one was compared with its manifest.

    Raises DriverError: no-modules where one is damaged, no-space, node-file.
    """
    for found in entries:
        check(found.folder)
    try:
        # Who writes to the same file meanwhile has locked what he writes.
        files.remove_abandoned(file.parent.glob(f".{glob.escape(file.name)}.*{files.PARTIAL}"))
        files.replace(file, 0o644, lambda output: _write(entries, output))
    except OSError as error:
        code = Code.NO_SPACE if error.errno in files.FULL else Code.NODE_FILE
        raise DriverError(code, f"{file} cannot be written: {error.strerror}", "Give another place for it") from error


def _write(entries: Sequence[Entry], output: IO[bytes]) -> None:
    fcntl.flock(output.fileno(), fcntl.LOCK_EX)
    with tarfile.open("", "w:gz", output, format=tarfile.USTAR_FORMAT, compresslevel=6) as archive:
        about = json.dumps({"schema": SCHEMA, "entries": [found.key.digest for found in entries]})
        _add(archive, FORMAT, len(about), io.BytesIO(about.encode()))
        for found in entries:
            modules = sorted(module.file.name for module in found.module_set.modules.values())
            for name in (*DOCUMENTS, *([BUILD_LOG] if (found.folder / BUILD_LOG).is_file() else []), *modules):
                path = found.folder / name
                with path.open("rb") as content:
                    _add(archive, f"{found.key.digest}/{name}", path.stat().st_size, content)


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    archive.addfile(info, content)


def read(file: Path, store: Store) -> tuple[Entry, ...]:
    """Take every entry of a file into the store; those that are there already stay as they are.

    None is published before all were compared with their manifests; who is killed while they are published has some of
    them, whole, and can repeat it. Then what was used least recently goes, beyond the store's bound.

    Raises DriverError: store-unusable where the file is not ours, cut short or not what it says of itself; no-space,
    also where it holds more than the store may.
    """
    with ExitStack() as stack:
        try:
            source = stack.enter_context(file.open("rb"))
        except OSError as error:
            raise DriverError(Code.NODE_FILE, f"{file} cannot be read: {error.strerror}", "Give its path") from error
        reader = Reader(file, stack.enter_context(gzip.GzipFile(fileobj=source, mode="rb")), store.max_bytes)
        staged: list[tuple[Path, Key]] = []
        while reader.member is not None:
            if len(staged) == ENTRY_LIMIT:
                reader.refuse(f"it has more than {ENTRY_LIMIT} entries")
            stage = stack.enter_context(store.stage())
            staged.append((stage, read_entry(reader, stage)))
        taken = tuple(store.place(stage, key) for stage, key in staged)
        store.make_room({found.key.digest for found in taken})
        return taken


def read_entry(reader: "Reader", stage: Path) -> Key:
    """Unpack the entry that comes next into a folder, each file compared with its manifest; raises DriverError."""
    assert reader.member is not None
    digest = reader.member.name.partition("/")[0]
    documents = {name: reader.take_document(f"{digest}/{name}") for name in DOCUMENTS}
    described = entry.parse(documents, Path(digest))
    if isinstance(described, Refused):
        reader.refuse(described.reason)
    if described.key.digest != digest:
        reader.refuse(f"{digest}/{entry.KEY} describes the entry {described.key.digest}")
    wanted = {module.file.name: module for module in described.module_set.modules.values()}
    while reader.member is not None and reader.member.name.startswith(f"{digest}/"):
        name = reader.member.name.removeprefix(f"{digest}/")
        if name == BUILD_LOG and not (stage / name).exists():
            reader.take_file(stage / name, LOG_LIMIT)
            continue
        module = wanted.pop(name, None)
        if module is None:
            reader.refuse(f"{digest}/{name} is not in its manifest, or there twice")
        if module.size != reader.member.size:
            reader.refuse(f"{digest}/{name} has {reader.member.size} bytes, its manifest says {module.size}")
        if reader.take_file(stage / name, MODULE_LIMIT) != module.sha256:
            reader.refuse(f"{digest}/{name} is not the file its manifest describes")
    if wanted:
        reader.refuse(f"{digest} lacks {', '.join(sorted(wanted))}")
    for name, content in documents.items():
        (stage / name).write_bytes(content)
    return described.key


class Reader:
    """The files of an export one after the other: `member` is the next, None at the end, which was then reached whole.

    Nothing but plain files is accepted, and nothing is read beyond what was bounded.
    """

    def __init__(self, file: Path, data: gzip.GzipFile, most: int | None = None) -> None:
        """Read who wrote it; `most` bounds the bytes of all files in it.

        Raises DriverError (store-unusable) for a file that is not ours.
        """
        self.file = file
        self._data = data
        self._most, self._taken = most, 0
        self.member = self._next()
        if self.member is None or self.member.name != FORMAT:
            self.refuse("it begins otherwise than an export of a store")
        try:
            schema = parse_document(self.take_document(FORMAT)).get("schema")
        except (ValueError, RecursionError) as error:
            self.refuse(str(error))
        if schema != SCHEMA:
            newer = type(schema) is int and schema > SCHEMA
            self.refuse("it was written by a newer driverctr" if newer else f"its schema is {schema!r}")

    def refuse(self, reason: str) -> NoReturn:
        """Nothing of this file is taken; raises DriverError (store-unusable)."""
        raise DriverError(
            Code.STORE_UNUSABLE,
            f"{self.file} is not imported: {reason}",
            "Give a file that `driverctr store export` wrote, whole",
        )

    def take_document(self, name: str) -> bytes:
        """The content of the next file, which must be this one."""
        if self.member is None or self.member.name != name:
            self.refuse(f"{name} is missing where it must be")
        if self.member.size > trust.DOCUMENT_LIMIT:
            self.refuse(f"{name} has {self.member.size} bytes")
        self._count(self.member.size)
        content = self._read(self.member.size)
        self._skip_to_next(self.member.size)
        return content

    def take_file(self, target: Path, limit: int) -> str:
        """Write the next file to `target`, and return its SHA-256; raises OSError where it cannot be written."""
        assert self.member is not None
        size = left = self.member.size
        if size > limit:
            self.refuse(f"{self.member.name} has {size} bytes")
        self._count(size)
        digest = hashlib.sha256()
        with target.open("wb") as output:
            while left:
                piece = self._read(min(left, PIECE))
                digest.update(piece)
                output.write(piece)
                left -= len(piece)
        self._skip_to_next(size)
        return digest.hexdigest()

    def _skip_to_next(self, size: int) -> None:
        self._read(-size % BLOCK)
        self.member = self._next()

    def _next(self) -> tarfile.TarInfo | None:
        block = self._read(BLOCK)
        if not block.strip(b"\0"):
            self._end()
            return None
        try:
            member = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            self.refuse(f"it is no tar of ours: {error}")
        if not member.isreg() or member.size < 0 or not member.name.isprintable():
            self.refuse(f"{member.name!r} in it is no plain file")
        return member

    def _count(self, size: int) -> None:
        self._taken += size
        if self._most is not None and self._taken > self._most:
            most = f"{self._most / 1e6:.0f} MB"
            raise DriverError(
                Code.NO_SPACE,
                f"{self.file} is not imported: it unpacks to more than the {most} that the store may hold",
                "Raise STORE_MAX_SIZE, or export fewer entries (`store export --kernel`)",
            )

    def _end(self) -> None:
        """After the last file come some zeros, and then the check sum of all that was compressed."""
        tail = self._read_some(TAIL_LIMIT + 1)
        if len(tail) > TAIL_LIMIT or tail.strip(b"\0"):
            self.refuse("more follows where it ends")

    def _read(self, size: int) -> bytes:
        content = self._read_some(size)
        if len(content) < size:
            self.refuse("it is cut short")
        return content

    def _read_some(self, size: int) -> bytes:
        try:
            return self._data.read(size)
        except (OSError, EOFError, zlib.error) as error:
            self.refuse(f"it is cut short or no gzip file: {error}")
