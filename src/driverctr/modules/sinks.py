"""Where bytes from outside go: never more of them than was allowed, and judged before they are used."""

import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from driverctr.errors import Code, DriverError
from driverctr.files import FULL
from driverctr.modules import ModuleFile

PIECE = 1 << 20
"""Bytes unpacked at once."""


class Sink(Protocol):
    """Where the bytes of one file go; it refuses, with a DriverError, more of them than it can believe."""

    @property
    def received(self) -> int:
        """How many bytes have come."""

    @property
    def whole(self) -> bool:
        """Whether no further byte is wanted."""

    @property
    def may_end(self) -> bool:
        """Whether the file can end here."""

    def write(self, piece: bytes) -> None:
        """Take the next bytes."""

    def restart(self) -> None:
        """Forget all that has come."""


class Document:
    """A small file, kept in memory; how long it is only its server knows."""

    whole = False
    may_end = True

    def __init__(self, name: str, largest: int) -> None:
        """`largest` is in bytes."""
        self._name = name
        self._largest = largest
        self._content = bytearray()

    @property
    def received(self) -> int:
        """How many bytes have come."""
        return len(self._content)

    @property
    def content(self) -> bytes:
        """All that has come."""
        return bytes(self._content)

    def write(self, piece: bytes) -> None:
        """Take the next bytes; raises DriverError (remote-failed) for too many."""
        if self.received + len(piece) > self._largest:
            raise DriverError(
                Code.REMOTE_FAILED,
                f"{self._name} is longer than {self._largest} bytes, so it is none of ours",
                "See what the server answers there; a login page, a proxy's error page?",
            )
        self._content += piece

    def restart(self) -> None:
        """Forget all that has come."""
        self._content.clear()


class Unpacked:
    """A module that comes compressed (gzip, RFC 1952) and is unpacked and hashed as it comes."""

    def __init__(self, module: ModuleFile, file: IO[bytes]) -> None:
        """`module` says what it must become, `file` is where it goes."""
        self._module = module
        self._file = file
        # What gzip cannot make smaller grows by 5 bytes in 16 KiB, and has a head and a name (zlib's technical notes).
        self._largest = module.size + module.size // 1000 + 4096
        self.received = 0
        self._begin()

    def _begin(self) -> None:
        self._size = 0
        self._digest = hashlib.sha256()
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def whole(self) -> bool:
        """Whether the end of the packed stream has come."""
        return self._inflate.eof

    @property
    def may_end(self) -> bool:
        """The same: a packed stream knows its end."""
        return self._inflate.eof

    def write(self, piece: bytes) -> None:
        """Take the next bytes; raises DriverError: signature-invalid, no-space, node-file."""
        self.received += len(piece)
        if self.received > self._largest:
            raise self._other("it is longer")
        while piece and not self._inflate.eof:
            try:
                data = self._inflate.decompress(piece, min(PIECE, self._module.size - self._size + 1))
            except zlib.error as error:
                raise self._other(f"it cannot be unpacked ({error})") from error
            self._size += len(data)
            if self._size > self._module.size:
                raise self._other("it unpacks to more")
            self._digest.update(data)
            with told_if_full(self._module.file):
                self._file.write(data)
            piece = self._inflate.unconsumed_tail

    def restart(self) -> None:
        """Forget all that has come; raises DriverError (no-space, node-file)."""
        self.received = 0
        self._begin()
        with told_if_full(self._module.file):
            self._file.seek(0)
            self._file.truncate()

    def check(self) -> None:
        """Compare what came with what was signed; raises DriverError: signature-invalid, no-space, node-file."""
        with told_if_full(self._module.file):
            self._file.flush()
        if (self._size, self._digest.hexdigest()) != (self._module.size, self._module.sha256):
            raise self._other(f"its sha256 is {self._digest.hexdigest()[:12]}...")

    def _other(self, why: str) -> DriverError:
        return DriverError(
            Code.SIGNATURE_INVALID,
            f"{self._module.file.name} is not the file that was signed: {why}",
            "Nothing of it was used. Find out who changed it, then push the entry again",
        )


@contextlib.contextmanager
def told_if_full(file: Path) -> Iterator[None]:
    """What our own disk refuses is no fault of the server; raises DriverError (no-space, node-file)."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        raise DriverError(
            Code.NO_SPACE if full else Code.NODE_FILE,
            f"{file} cannot be written: {error.strerror}",
            "Give its folder 150 MB to spare" if full else "Make its folder writable, or give another",
        ) from error
