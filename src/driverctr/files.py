"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from driverctr.deferred import shutil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a write fails with where no more may be written."""

SMALL = 1 << 16
"""Bytes: most files of /proc and /sys are read at once."""

PARTIAL = ".partial"
"""How the name of a file ends that is still being written; it begins with a dot."""

GONE = "-gone"
"""How the name of a folder ends that is being removed."""


def write_atomic(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write to a temporary file in the same folder, fsync, rename.

    Raises OSError; then the former file is untouched and nothing is left beside it.
    """
    data = content.encode() if isinstance(content, str) else content
    replace(path, mode, lambda file: file.write(data))


def copy_atomic(source: Path, target: Path, mode: int = 0o644) -> None:
    """Copy a file's content in the same way; raises OSError."""
    with source.open("rb") as data:
        replace(target, mode, lambda file: shutil.copyfileobj(data, file, 1 << 20))


def replace(path: Path, mode: int, fill: Callable[[IO[bytes]], object]) -> None:
    """Have a file filled that then takes the place of `path`; raises OSError, and what `fill` raises.

    Named before it is made, and no generator for a `with`: a signal that ends us at any moment leaves no part of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}{PARTIAL}"
    try:
        with partial.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            fill(file)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sweep(*folders: Path) -> None:
    """Remove what a process killed in `replace` left; only where no other can be writing. Raises OSError."""
    for folder in folders:
        remove(*folder.glob(f".*{PARTIAL}"))


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[int]:
    """Hold a folder for the length of the block, by the descriptor given: `remove_abandoned` sees that its maker lives.

    On a filesystem of several machines (NFS) only those of this one see it. Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at its path: a lock on another excludes nobody. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Remove folders and files whose maker (`claimed`) is no more.

    A folder is renamed before: its maker, if it lives all the same on another machine, cannot give it a name any more.
    """
    for path in paths:
        with contextlib.suppress(OSError):
            # NFS locks only what is open for writing, which a folder cannot be.
            access = os.O_RDONLY if path.is_dir() else os.O_RDWR
            handle = os.open(path, access | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    gone = path if path.name.endswith(GONE) else path.rename(path.with_name(path.name + GONE))
                    shutil.rmtree(gone, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(handle)


def exchange(one: Path, other: Path) -> None:
    """Let two files or folders of one filesystem change places at once; raises OSError where it cannot do that.

    renameat2(2) with RENAME_EXCHANGE (linux/fs.h), in glibc since 2.28.
    """
    import ctypes

    at_cwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), ctypes.c_uint(rename_exchange)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def sync(*paths: Path) -> None:
    """fsync files and folders, in this order; raises OSError."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(*paths: Path) -> None:
    """Remove files that may be gone already; raises OSError for any other reason."""
    for path in paths:
        path.unlink(missing_ok=True)


def read_regular(path: Path) -> bytes:
    """The content of a regular file; raises OSError, also for what might never end."""
    from driverctr.hashing import open_regular  # here: threading and mmap are no need of `driverctr status`

    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read()


def read_text(path: Path | str) -> str | None:
    """The text of a small file without the white space around it, or None where it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = b""
            while part := os.read(handle, SMALL):
                content += part
        finally:
            os.close(handle)
    except OSError:
        return None
    return content.decode(errors="replace").strip()


def entries(folder: Path) -> list[Path]:
    """What a folder holds, by name; nothing where it is not there, or vanishes meanwhile as those of sysfs do.

    Raises OSError for any other reason: what could not be looked at is not known to be empty.
    """
    return [folder / name for name in names(folder)]


def names(folder: Path) -> list[str]:
    """The same as names alone, for who wants few of many: to make and compare paths costs more than to read them."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  # as above
    except (FileNotFoundError, NotADirectoryError):
        return []


def link_target(link: Path) -> str:
    """The last part of what a link leads to, as sysfs names a driver; "" where there is no link, or no more."""
    try:
        return link.readlink().name
    except OSError:
        return ""


def write_kernel(path: Path, value: str) -> None:
    """Write a /sys or /proc file in place; raises OSError."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def newest(paths: Iterable[Path]) -> Path | None:
    """The path changed last, or None; a path that vanishes meanwhile is passed over."""
    times: list[tuple[float, Path]] = []
    for path in paths:
        with contextlib.suppress(OSError):
            times.append((path.stat().st_mtime, path))
    return max(times)[1] if times else None
