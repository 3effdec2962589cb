"""Filling a remote folder: entries compressed, signed, and written so that no reader ever takes half of one."""

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import MANIFEST, ModuleFile, ModuleSet, manifest_document, signing
from driverctr.modules.bounds import Deadline, Limits
from driverctr.modules.drafts import DEFAULT_SCRATCH, scratch_folder
from driverctr.modules.entry import KEY
from driverctr.modules.key import Key
from driverctr.modules.remote import LARGEST_DOCUMENT, SIGNATURE, WITHDRAWN, compressed, fetch_module, read_entry
from driverctr.modules.sinks import PIECE, Document, Sink, told_if_full
from driverctr.values import parse_url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from driverctr.modules.web import Web

LEVEL = 6
"""Of gzip; 9 takes twice as long for one percent less."""
LIMITS = Limits(files=3600.0)
"""Who pushes has the time that a node has not."""
NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""How a filesystem, or a kernel, says that it has no RENAME_EXCHANGE."""


class Target(Protocol):
    """What can be filled, and read as a node reads it; `shown` is its name for messages."""

    shown: str

    def get(self, name: str, sink: Sink, deadline: Deadline) -> None:
        """Bring a file; raises DriverError (no-modules, remote-failed) and what the sink raises."""

    def put(self, entry: str, folder: Path, names: Sequence[str]) -> None:
        """Take an entry's files out of a folder, in this order.

        Raises DriverError (remote-failed, no-space, node-file), OSError where the folder cannot be read.
        """


def push(
    key: Key, found: ModuleSet, target: Target, private: "Ed25519PrivateKey", log: Log, scratch: Path = DEFAULT_SCRATCH
) -> bool:
    """Sign an entry and send it, unless it is there, signed with the same key, and whole: then False.

    Raises DriverError: no-modules (a file is not the one its manifest describes), remote-failed, no-space, node-file.
    """
    place = f"{target.shown}/{key.digest}"
    with told_if_full(scratch), scratch_folder(scratch) as stage:
        if is_whole(target, key, private, stage):
            log.info(f"push: {key.wish} is at {place} already")
            return False
        with log.step("push", f"{key.wish} to {place}"):
            target.put(key.digest, stage, fill(stage, key, found, private))
    return True


def is_whole(target: Target, key: Key, private: "Ed25519PrivateKey", scratch: Path) -> bool:
    """Whether a node would take what lies there under this key, judged as a node judges it."""
    public = private.public_key()
    try:
        entry = read_entry(target, key, {signing.key_id(public): public}, Deadline.after(LIMITS.documents))
        if entry is None:
            return False
        deadline = Deadline.after(LIMITS.files)
        for name, module in entry.module_set(scratch).modules.items():
            fetch_module(target, key, name, module, deadline)
            module.file.unlink()
    except DriverError:
        return False
    return True


def fill(stage: Path, key: Key, found: ModuleSet, private: "Ed25519PrivateKey") -> list[str]:
    """Make an entry's files in a folder; their names, in the order in which they are to be written.

    Raises DriverError (no-modules), OSError.
    """
    for name, module in found.modules.items():
        compress(module, stage / compressed(name))
    key_document = key.document.encode()
    manifest = (json.dumps(manifest_document(found), indent=2) + "\n").encode()
    (stage / KEY).write_bytes(key_document)
    (stage / MANIFEST).write_bytes(manifest)
    (stage / SIGNATURE).write_bytes(signing.sign(private, key_document, manifest))
    return [*map(compressed, sorted(found.modules)), KEY, MANIFEST, SIGNATURE]


def compress(module: ModuleFile, target: Path) -> None:
    """Pack a module file, and see while doing so that it is the one described; raises DriverError (no-modules)."""
    digest = hashlib.sha256()
    with (
        module.file.open("rb") as source,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed,
    ):
        while piece := source.read(PIECE):
            digest.update(piece)
            packed.write(piece)
    if digest.hexdigest() != module.sha256:
        raise DriverError(
            Code.NO_MODULES,
            f"{module.file} is not the file its manifest describes (sha256 {digest.hexdigest()[:12]}...)",
            "`driverctr store verify` sets damaged entries aside; build it again",
        )


class Folder:
    """A folder that a web server offers, or that is copied to one."""

    def __init__(self, folder: Path) -> None:
        """It is made when something is put into it."""
        self.shown = str(folder)
        self._folder = folder

    def get(self, name: str, sink: Sink, deadline: Deadline) -> None:
        """Bring a file; raises DriverError (no-modules, remote-failed) and what the sink raises."""
        try:
            with (self._folder / name).open("rb") as file:
                while not sink.whole and (piece := file.read(PIECE)):
                    sink.write(piece)
        except FileNotFoundError as error:
            raise DriverError(Code.NO_MODULES, f"{self.shown} has no {name}") from error
        except OSError as error:
            raise DriverError(Code.REMOTE_FAILED, f"{self.shown}/{name}: {error.strerror}") from error

    def put(self, entry: str, folder: Path, names: Sequence[str]) -> None:
        """Bring an entry to its place whole: staged beside it, synced, exchanged with what is there or renamed.

        Raises DriverError: no-space, node-file, also where another machine takes the stage for abandoned.
        """
        with told_if_full(self._folder), ExitStack() as stack:
            stage, claim = self._stage(entry, stack)
            for name in names:
                files.copy_atomic(folder / name, stage / name)
            if not files.is_at(claim, stage):
                raise DriverError(
                    Code.NODE_FILE,
                    f"{stage} was taken away by another who pushes to {self.shown} at the same time",
                    "Let one machine push to a folder, then push again",
                )
            stage.chmod(0o755)  # who offers the folder to others is another user, most likely
            files.sync(stage)
            self._place(stage, self._folder / entry)
            files.sync(self._folder)

    def _stage(self, entry: str, stack: ExitStack) -> tuple[Path, int]:
        """A new folder and its descriptor, claimed before another can look for abandoned ones; removed at the end."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with files.claimed(self._folder):
            files.remove_abandoned(self._folder.glob(".*.stage-*"))
            stage = Path(tempfile.mkdtemp(prefix=f".{entry}.stage-", dir=self._folder))
            stack.callback(shutil.rmtree, stage, ignore_errors=True)
            return stage, stack.enter_context(files.claimed(stage))

    def _place(self, stage: Path, place: Path) -> None:
        """Give the stage its name; where something has that, it gets the stage's, to be removed with it.

        On a filesystem that cannot exchange two names (NFS) the former goes first: it was not whole, or another's.
        """
        if not os.path.lexists(place):
            stage.rename(place)
            return
        try:
            files.exchange(stage, place)
        except OSError as error:
            if error.errno not in NO_EXCHANGE:
                raise
            shutil.rmtree(place)
            stage.rename(place)


class Server:
    """A server that takes files by plain PUT."""

    def __init__(self, web: "Web") -> None:
        """`web` is the address, with the name and password to be used there."""
        self.shown = web.shown
        self._web = web

    def get(self, name: str, sink: Sink, deadline: Deadline) -> None:
        """Bring a file; raises DriverError (no-modules, remote-failed) and what the sink raises."""
        self._web.get(name, sink, deadline)

    def put(self, entry: str, folder: Path, names: Sequence[str]) -> None:
        """Send an entry's files in this order; a signature that is there already is withdrawn before.

        By PUT, since that is all the server needs to know. Raises DriverError (remote-failed), OSError.
        """
        deadline = Deadline.after(self._web.limits.files)
        if self._has(f"{entry}/{SIGNATURE}", deadline):
            with tempfile.NamedTemporaryFile(dir=folder) as withdrawn:
                withdrawn.write(WITHDRAWN)
                withdrawn.flush()
                self._web.put(f"{entry}/{SIGNATURE}", Path(withdrawn.name), deadline)
        for name in names:
            self._web.put(f"{entry}/{name}", folder / name, deadline)

    def _has(self, name: str, deadline: Deadline) -> bool:
        """Whether a file is there; where that cannot be told, it is taken for there."""
        try:
            self._web.get(name, Document(f"{self.shown}/{name}", LARGEST_DOCUMENT), deadline)
        except DriverError as error:
            return error.code is not Code.NO_MODULES
        return True


def target_of(words: str, environment: Mapping[str, str], log: Log, sleep: Callable[[float], object]) -> Target:
    """A folder, or an HTTP(S) address; raises DriverError (bad-setting) for an address that is none."""
    if not re.match("[a-z]+://", words, re.IGNORECASE):
        return Folder(Path(words))
    from driverctr.modules.web import Web

    return Server(Web(parse_url("--to", words), environment, LIMITS, log, sleep))
