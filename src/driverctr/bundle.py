"""One archive for a bug report: parts that are gathered each for itself, concealed, bounded, and told in an index."""

import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from driverctr import files
from driverctr.conceal import conceal, conceal_all
from driverctr.errors import Code, DriverError
from driverctr.records import frozen

INDEX = "index.txt"
FAILED = "not to be had"
"""How the note of a part begins that failed."""

PART_TIME = 60.0
"""Seconds a part may take: where the driver hangs in the kernel, so does who asks it."""

MOST = 256 << 10
"""Bytes of a part, where it has no bound of its own."""

READ_AT_MOST = 4 << 20
"""Bytes of a file that are read for a part, its end if it is longer."""


@frozen
class Part:
    """A file of the archive: what it is, how it is made of a scene, and the bytes it may have at most.

    Made is a text, or a document that becomes JSON. Of what is longer the end is kept, where `keeps_end` is set, or the
    beginning.
    """

    name: str
    what: str
    make: Callable[..., Any]
    most: int = MOST
    keeps_end: bool = False


@frozen
class Member:
    """A part that was gathered; `note` says why it is not all of it, or not there, "" where it is."""

    name: str
    what: str
    content: bytes
    note: str = ""


def gather(parts: Iterable[Part], scene: object) -> tuple[Member, ...]:
    """Make every part; one that fails has in its place why, and the others are there all the same."""
    return tuple(_gather(part, scene) for part in parts)


def _gather(part: Part, scene: object) -> Member:
    try:
        text = within(PART_TIME, lambda: as_text(part.make(scene)))
    except FileNotFoundError as error:
        return Member(part.name, part.what, f"not there: {error.filename}\n".encode(), "not there")
    except Exception as error:  # noqa: BLE001  # what is asked about is broken: each part may fail in a way of its own
        why = conceal(f"{FAILED}: {_tell(error)}")
        return Member(part.name, part.what, f"{why}\n".encode(), why)
    if not text:
        return Member(part.name, part.what, b"", "empty")
    return _bounded(part, text.encode(errors="backslashreplace"))


def as_text(made: Any) -> str:
    """Without secrets, before anything is cut: half of one would not be known."""
    return conceal(made) if isinstance(made, str) else json.dumps(conceal_all(made), indent=2, default=str) + "\n"


def _bounded(part: Part, content: bytes) -> Member:
    """Cut between two lines; the note says what was left out."""
    if len(content) <= part.most:
        return Member(part.name, part.what, content)
    if part.keeps_end:
        kept = content[-part.most :].partition(b"\n")[2]
    else:
        kept = content[: part.most].rpartition(b"\n")[0] + b"\n"
    which = "end" if part.keeps_end else "beginning"
    return Member(part.name, part.what, kept, f"only the {which}, {len(kept)} of {len(content)} bytes")


def _tell(error: BaseException) -> str:
    if isinstance(error, DriverError):
        return f"{error.code.value}: {error.message}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or ''}: {error.strerror}".removeprefix(": ")
    return f"{type(error).__name__}: {error}"


Made = TypeVar("Made")


def within(seconds: float, make: Callable[[], Made]) -> Made:
    """What `make` returns or raises, and TimeoutError where it takes longer: then it is left to itself."""
    ended: list[tuple[Made | None, BaseException | None]] = []

    def work() -> None:
        try:
            ended.append((make(), None))
        except BaseException as error:  # noqa: BLE001  # raised where it was asked for
            ended.append((None, error))

    worker = threading.Thread(target=work, name="part", daemon=True)
    worker.start()
    worker.join(seconds)
    if not ended:
        raise TimeoutError(f"it did not come within {seconds:.0f} s")
    made, failure = ended[0]
    if failure is not None:
        raise failure
    return made  # type: ignore[return-value]  # None only where `make` returns it


def index(members: Sequence[Member], made_at: float) -> bytes:
    """What the archive has, for who opens it."""
    width = max(len(member.name) for member in members) if members else 0
    lines = [
        "A bundle of `driverctr doctor --bundle`, for a bug report.",
        f"Made {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(made_at))}.",
        "Secrets that are known, or look like one, are hidden; look through it before you give it away.",
        "The driver container's own log is not in it: `docker logs`, `kubectl logs`, with --previous after a crash.",
        "",
    ]
    for member in members:
        note = f"  [{member.note}]" if member.note else ""
        lines.append(f"{member.name:{width}}  {len(member.content):8}  {member.what}{note}")
    return ("\n".join(lines) + "\n").encode()


def pack(members: Sequence[Member], folder: str, made_at: float, to: IO[bytes]) -> None:
    """Write a .tar.gz with the index first, everything in one folder; raises OSError."""
    everything = [Member(INDEX, "this file", index(members, made_at)), *members]
    with tarfile.open(fileobj=to, mode="w|gz", format=tarfile.PAX_FORMAT) as archive:
        for member in everything:
            head = tarfile.TarInfo(f"{folder}/{member.name}")
            head.size, head.mtime, head.mode = len(member.content), int(made_at), 0o644
            archive.addfile(head, io.BytesIO(member.content))


def save(members: Sequence[Member], folder: str, made_at: float, path: Path) -> None:
    """Have the archive at a path, whole, for its owner alone; raises DriverError (node-file, no-space)."""
    try:
        files.replace(path, 0o600, lambda file: pack(members, folder, made_at, file))
    except OSError as error:
        raise DriverError(
            Code.NO_SPACE if error.errno in files.FULL else Code.NODE_FILE,
            f"{path} could not be written: {error.strerror or error}",
            "Name a file in a folder that can be written to, or - for standard output",
        ) from error


def read_end(path: Path, most: int = READ_AT_MOST) -> str:
    """A file's text, of one that is longer its end, from the beginning of a line; raises OSError.

    Files of /proc and /sys tell no size: they are read to their end, or to that many bytes.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            file.seek(size - most)
            return _read(file, most).partition(b"\n")[2].decode(errors="replace")
        return _read(file, most).decode(errors="replace")


def _read(file: IO[bytes], most: int) -> bytes:
    pieces: list[bytes] = []
    while most > 0 and (piece := file.read(most)):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)
