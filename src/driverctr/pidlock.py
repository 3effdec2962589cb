"""One instance: the lock on the pid file, as NVIDIA's driver container and any shell's `flock -n` take it."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.log import utc
from driverctr.records import frozen

ATTEMPTS = 100
"""How often the file may be replaced under our hands before we say so; each time somebody deleted it."""


@contextmanager
def held(path: Path, locks: Path = Path("/proc/locks")) -> Iterator[None]:
    """Hold the lock for the length of the block, with our pid in the file; the file goes at the end.

    Raises DriverError: already-running (the file stays as the holder wrote it), node-file, or no-space.
    """
    try:
        descriptor = _acquire(path, locks)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise _unusable(path, error) from error
        yield
    finally:
        if files.is_at(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def is_held(path: Path, locks: Path = Path("/proc/locks")) -> bool:
    """Whether a process that we can see holds the lock; nothing is locked for the answer."""
    return holder(path, locks) is not None


def holder(path: Path, locks: Path = Path("/proc/locks")) -> int | None:
    """The pid of the process that holds the lock, by the kernel's word; None where we see none."""
    try:
        return next(iter(_lock_pids(path.stat(), locks)), None)
    except OSError:
        return None


def _unusable(path: Path, error: OSError) -> DriverError:
    if error.errno == errno.ENOSPC:
        return DriverError(
            Code.NO_SPACE, f"the pid file {path} cannot be written: {error.strerror}", f"Free space in {path.parent}"
        )
    return DriverError(
        Code.NODE_FILE,
        f"the pid file {path} cannot be used: {error.strerror}",
        f"Remove {path} if it is not a regular file, and make {path.parent} writable",
    )


def _acquire(path: Path, locks: Path) -> int:
    """A descriptor of the locked file. Others delete the file (k8s-driver-manager): a lock on a file that is no longer
    at its path excludes nobody, so it is tried again.

    flock(2) by itself: package filelock takes a tenth of a start to import, for this one call.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _already_running(path, descriptor, locks) from None
            if files.is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise DriverError(
        Code.NODE_FILE, f"the pid file {path} was deleted {ATTEMPTS} times while we locked it", "Stop what deletes it"
    )


@frozen
class _Candidate:
    """A pid that may be the holder's, and who says so."""

    pid: int
    source: str


def _already_running(path: Path, descriptor: int, locks: Path) -> DriverError:
    return DriverError(
        Code.ALREADY_RUNNING,
        f"another driver container holds {path}: {_describe(_candidates(path, descriptor, locks))}",
        "Stop it first, or leave it be: one node needs one driver container",
    )


def _candidates(path: Path, descriptor: int, locks: Path) -> list[_Candidate]:
    """The kernel's word first; a shell's lock is listed under the ended flock(1), then the file knows the shell."""
    found = [_Candidate(pid, "the kernel") for pid in _lock_pids(os.fstat(descriptor), locks)]
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    if text.isdecimal():
        found.append(_Candidate(int(text), str(path)))
    return found


def _lock_pids(status: os.stat_result, locks: Path) -> list[int]:
    """The pids that flock(2)ed this file, from proc_locks(5); those outside our PID namespace are missing or 0."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = locks.read_text().splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [int(f[4]) for f in fields if len(f) > 5 and f[1] == "FLOCK" and f[5] == device and int(f[4]) > 0]


def _describe(candidates: list[_Candidate]) -> str:
    """Pid, command and start of the first that lives; else what is known."""
    import psutil

    for candidate in candidates:
        try:
            process = psutil.Process(candidate.pid)
            command = " ".join(process.cmdline()) or process.name()
            return f"pid {candidate.pid} (`{command}`), started {utc(process.create_time())}"
        except psutil.Error:
            continue
    if candidates:
        return f"pid {candidates[-1].pid} according to {candidates[-1].source}, in a PID namespace we do not see"
    return "a process in a PID namespace we do not see (give the container the host's: --pid=host, hostPID)"
