"""One instance: the lock on the pid file, as NVIDIA's driver container and any shell's `flock -n` take it."""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driverctr import files, status
from driverctr.errors import Code, DriverError
from driverctr.facts import containers, processes
from driverctr.log import utc
from driverctr.paths import Paths

ATTEMPTS = 100
"""How often the file may be replaced under our hands before we say so; each time somebody deleted it."""

HERE = Paths()
"""This node."""


@contextmanager
def held(path: Path, node: Paths = HERE) -> Iterator[None]:
    """Hold the lock for the length of the block, with our pid in the file; the file goes at the end.

    `node` is where it is looked up who else holds it.
    Raises DriverError: already-running (the file stays as the holder wrote it), node-file, or no-space.
    """
    try:
        descriptor = _acquire(path, node)
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


def _acquire(path: Path, node: Paths) -> int:
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
                raise _already_running(path, descriptor, node) from None
            if files.is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise DriverError(
        Code.NODE_FILE, f"the pid file {path} was deleted {ATTEMPTS} times while we locked it", "Stop what deletes it"
    )


def _already_running(path: Path, descriptor: int, node: Paths) -> DriverError:
    return DriverError(
        Code.ALREADY_RUNNING,
        f"another driver container holds {path}: {_describe(descriptor, node)}",
        "Stop it first, or leave it be: one node needs one driver container",
    )


def _describe(descriptor: int, node: Paths) -> str:
    """Pid, command, container and start of the holder; where it is not seen, what its status document tells.

    No pid is believed by its number alone, which may be that of an innocent: the process must have this file open.
    """
    file = os.fstat(descriptor)
    for pid in _candidates(file, descriptor, node):
        process = processes.read(node, pid)
        if process is None or not processes.has_open(node, pid, file):
            continue
        command, container = processes.read_command(node, process), str(containers.read(node, pid))
        started = processes.started_at(node, process)
        again = processes.read(node, pid)
        if again is not None and again.identity == process.identity:
            where = f", {container}" if container else ""
            return f"pid {pid} (`{command}`){where}, started {utc(started)}"
    cure = "give the container the host's: --pid=host, hostPID"
    return f"a process in a PID namespace that is not seen from here ({cure}){_by_its_document(file, node)}"


def _candidates(file: os.stat_result, descriptor: int, node: Paths) -> list[int]:
    """The kernel's word first; a shell's lock is listed under the ended flock(1), then the file knows the shell.

    Our own number in the file is another's, who sees it in a PID namespace of his own: 1, between two containers.
    """
    found = _lock_pids(file, node.proc / "locks")
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    if re.fullmatch(r"[0-9]{1,10}", text) and int(text) != os.getpid():
        found.append(int(text))
    return found


def _by_its_document(file: os.stat_result, node: Paths) -> str:
    """What the holder says of itself; a document older than its pid in the file is a former holder's."""
    try:
        if node.status_file.stat().st_mtime < file.st_mtime:
            return ""
    except OSError:
        return ""
    document = status.read(node) or {}
    container, started = document.get("container"), document.get("started")
    parts = [f"container {container[: containers.SHORT_ID]}"] if isinstance(container, str) and container else []
    parts += [f"started {utc(started)}"] if isinstance(started, (int, float)) else []
    return f"; {node.status_file} says: {', '.join(parts)}" if parts else ""


def _lock_pids(file: os.stat_result, locks: Path) -> list[int]:
    """The pids that flock(2)ed this file, from proc_locks(5); those outside our PID namespace are missing or 0."""
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        lines = locks.read_text().splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [int(f[4]) for f in fields if len(f) > 5 and f[1] == "FLOCK" and f[5] == device and int(f[4]) > 0]
