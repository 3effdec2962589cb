"""Locks between the processes that use one store: flock(2) on files of the store's own folder."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.log import utc

Wait = Callable[[float], None]
"""Lets seconds pass; whoever stops us ends it by an exception."""

PAUSE = 0.5
"""Seconds between two tries."""

MOMENTS = 20.0
"""Seconds that are waited for what is held for moments only: the longest is a hash of one entry."""

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""How a filesystem says that it has no flock(2)."""


@contextlib.contextmanager
def held(file: Path, wait: Wait, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock for the length of the block; `tell` is called once, with who holds it, if it must be waited for.

    Raises OSError where the file cannot be had, DriverError (store-unusable) where the filesystem has no locks, and
    what `wait` raises.
    """
    descriptor = _acquire(file, wait, tell)
    try:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, describe_holder().encode(), 0)
        yield
    finally:
        # Under the lock: who waits for this very file sees afterwards that it is at its path no more.
        with contextlib.suppress(OSError):
            if files.is_at(descriptor, file):
                file.unlink()
        os.close(descriptor)


@contextlib.contextmanager
def held_soon(file: Path) -> Iterator[None]:
    """As `held`, for a lock that all hold for moments only: who does not is not waited for longer, and named.

    Raises OSError, DriverError (store-unusable).
    """
    deadline = time.monotonic() + MOMENTS
    holders: list[str] = []

    def wait(seconds: float) -> None:
        if time.monotonic() >= deadline:
            raise DriverError(
                Code.STORE_UNUSABLE,
                f"{file} has been held for {MOMENTS:g} s by {holders[0]}",
                "It is held for moments only: see what that process hangs on, and end it",
            )
        time.sleep(seconds / 10)

    with held(file, wait, holders.append):
        yield


def is_held(file: Path) -> bool:
    """Whether a lock is held at this moment; raises OSError, DriverError (store-unusable)."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor, file)
    finally:
        os.close(descriptor)


def describe_holder() -> str:
    """Who we are, for others: a pid alone tells little in a container."""
    return f"pid {os.getpid()} of {os.uname().nodename}, since {utc(time.time())}"


def _acquire(file: Path, wait: Wait, tell: Callable[[str], None]) -> int:
    told = False
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while not _lock(descriptor, file):
                if not told:
                    told = True
                    tell(os.pread(descriptor, 200, 0).decode(errors="replace") or "another process")
                wait(PAUSE)
            if files.is_at(descriptor, file):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, file: Path) -> bool:
    from filelock import lock_descriptor

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise DriverError(
            Code.STORE_UNUSABLE,
            f"the filesystem of {file.parent} has no locks (flock: {error.strerror})",
            "Put the store on a filesystem that has them, such as the node's own disk",
        ) from error
