"""The kernel log, read from /dev/kmsg: a mark before an act, and what the kernel said since."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from io import FileIO
from typing import Self

from driverctr.deferred import pattern
from driverctr.errors import DriverError
from driverctr.paths import Paths
from driverctr.records import frozen

RECORD_LIMIT = 8192
"""Bytes; a read(2) with less room than the record needs fails (Linux, PRINTK_MESSAGE_MAX and its prefix)."""

OF_NVIDIA = pattern(r"^(?:NVRM|nvidia(?:_\w+)?)\b|\bXid\b|\[nvidia-drm\]")
"""Lines of the driver: `NVRM: ...`, `nvidia-modeset: ...`, `nvidia_uvm: ...` (the loader's, of a module),
`nvidia 0000:3b:00.0: ...` (the device's own), Xids."""

OF_LOADER = pattern(
    r"^(?:module: |Loading of .+ is rejected|Lockdown: (?:modprobe|insmod|kmod): "
    r"|[Ii]nvalid (?:ELF|architecture in ELF) |vmap allocation for size )"
)
"""Lines of the kernel's module loader that name no module (Linux, kernel/module; lockdown names the process, and vmap
the room that a module did not find)."""

XID = pattern(r"\bXid \(")
"""`NVRM: Xid (PCI:0000:3b:00): 79, ...` (NVIDIA, "XID Errors")."""


@frozen
class Line:
    """One line: sequence number of its record, seconds since boot, text."""

    sequence: int
    seconds: float
    text: str


@frozen
class Extract:
    """What the kernel said; `unknown` says why it could not be read, `gap` that older lines were overwritten."""

    lines: tuple[Line, ...] = ()
    gap: bool = False
    unknown: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Every line's text."""
        return tuple(line.text for line in self.lines)

    def of_nvidia(self) -> tuple[str, ...]:
        """What the driver itself said, NVRM and Xid lines among it."""
        return tuple(text for text in self.texts if OF_NVIDIA.search(text))

    def xids(self) -> tuple[str, ...]:
        """The Xid lines: a GPU's own reports of errors."""
        return tuple(text for text in self.texts if XID.search(text))

    def about(self, names: Iterable[str]) -> tuple[str, ...]:
        """What was said of an act on these modules: by the driver, under the modules' names, by the module loader."""
        wanted = {*self.of_nvidia(), *(text for name in names for text in self.of_module(name))}
        return tuple(text for text in self.texts if text in wanted or OF_LOADER.search(text))

    def of_module(self, name: str) -> tuple[str, ...]:
        """What was said under a module's name, in either spelling: `nvidia_uvm: Unknown symbol ...`."""
        wanted = re.compile("^" + "[-_]".join(map(re.escape, re.split("[-_]", name))) + r"\b(?!-)")
        return tuple(text for text in self.texts if wanted.search(text))


class Mark:
    """A place in the kernel log: what is said from there on. Never blocks, never raises; to be closed.

    The place is kept by an open file: to find out the number of the last record would take a read of every one.
    """

    def __init__(self, paths: Paths, whence: int = os.SEEK_END) -> None:
        """At the end of what was said until now, or, by SEEK_SET, at the oldest record that the kernel still has."""
        self._file: FileIO | None = None
        self._records: list[bytes] = []
        self._gap = False
        self._unknown = ""
        self._path = paths.kernel_log
        try:
            self._file = FileIO(self._path, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))
            os.lseek(self._file.fileno(), 0, whence)
        except OSError as error:
            self._fail(error)

    def __enter__(self) -> Self:
        """For the length of a block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def read(self) -> Extract:
        """All lines since the mark, those that were read before among them."""
        try:
            self._read()
        except OSError as error:
            self._fail(error)
        return Extract(tuple(_parse(b"".join(self._records))), self._gap, self._unknown)

    def close(self) -> None:
        """Nothing more is read."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _read(self) -> None:
        """One record a read, until none is left: EAGAIN, or the end of a test's file; raises OSError.

        A record overwritten meanwhile is told by EPIPE, and the next read goes on behind it
        (Linux, Documentation/ABI/testing/dev-kmsg).
        """
        with contextlib.suppress(BlockingIOError):
            while self._file is not None:
                try:
                    record = os.read(self._file.fileno(), RECORD_LIMIT)
                except BrokenPipeError:
                    self._gap = True
                    continue
                if not record:
                    break
                self._records.append(record)

    def _fail(self, error: OSError) -> None:
        self._unknown = f"the kernel log {self._path} cannot be read: {error.strerror}"


def read(paths: Paths) -> Extract:
    """All lines that the kernel still has; never blocks, never raises."""
    with Mark(paths, os.SEEK_SET) as mark:
        return mark.read()


def explain(paths: Paths, mark: Mark, error: DriverError) -> DriverError:
    """An error with what the driver said since the mark; where it said nothing new, with the Xids of before."""
    said = mark.read().of_nvidia() or read(paths).xids()
    words = f" (kernel log: {last(said)})" if said else ""
    return DriverError(error.code, error.message + words, error.remedy)


def _parse(records: bytes) -> Iterator[Line]:
    """`priority,sequence,microseconds,flags[,...];text`; lines that begin with a space tell the device, not a text.

    The text has \\x0a for each line end within it (NVRM's paragraphs), and so on for what cannot be printed.
    """
    for record in records.decode(errors="replace").split("\n"):
        prefix, separator, text = record.partition(";")
        numbers = prefix.split(",")
        if separator and len(numbers) >= 3 and all(number.isdigit() for number in numbers[:3]):
            for line in _unescape(text).split("\n"):
                if line.strip():
                    yield Line(int(numbers[1]), int(numbers[2]) / 1e6, line.rstrip())


def _unescape(text: str) -> str:
    return re.sub(
        r"(?:\\x[0-9a-f]{2})+",
        lambda escaped: bytes.fromhex(escaped.group().replace("\\x", "")).decode(errors="replace"),
        text,
    )


def last(texts: Iterable[str], count: int = 5) -> str:
    """The last lines, as one for a message; an empty text where there are none."""
    return " | ".join(list(texts)[-count:])
