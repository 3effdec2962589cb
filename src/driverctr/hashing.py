"""SHA-256 of files, computed beside other work; it imports next to nothing, so that it can begin before all else."""
# pathlib alone costs more to import than all of this.
# ruff: noqa: PTH110, PTH116, PTH208

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module

from driverctr.deferred import hashlib, mmap, threading

PIECE = 8 << 20
"""Bytes."""

DEFAULT_FOLDER = "/opt/driverctr/modules"
"""Where modules lie that were built before, unless MODULES_DIR names another place."""

DEFAULT_STORE = "/var/lib/driverctr/store"
"""Where the store is, unless STORE_DIR names another place."""

LARGEST_KEY = 1 << 16
"""Bytes."""

OURS = "updates/driverctr"
"""Where our modules lie in the tree that modprobe reads; depmod prefers updates/ over all else (depmod.d(5))."""

USUAL = ("nvidia", "nvidia-uvm", "nvidia-modeset")
"""The modules that every start loads."""

Name = str | os.PathLike[str]


def sha256(path: Name) -> str:
    """The SHA-256 of a regular file, in hexadecimal; raises OSError, also for what might never end.

    In large pieces: between two of them the interpreter's lock is asked for, which other threads may hold for long.
    The buffer is a mapping of its own, since the heap of a thread keeps what was freed.
    """
    digest = hashlib.sha256()
    with (
        open(path, "rb", buffering=0, opener=open_regular) as file,
        mmap.mmap(-1, PIECE) as area,
        memoryview(area) as buffer,
    ):
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def sha256_of(text: bytes) -> str:
    """The SHA-256 of a short text, in hexadecimal.

    Where Python has its own, OpenSSL is not loaded for it, which takes a third of a bare interpreter's time.
    """
    try:
        own = import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256")
    except ImportError:  # a Python that leaves all of it to OpenSSL, as that of RHEL
        own = hashlib
    return str(own.sha256(text).hexdigest())


def open_regular(path: Name, flags: int) -> int:
    """Without waiting for who writes to a FIFO; raises OSError for all but regular files."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
    return descriptor


class Task:
    """A file to be hashed, and what came of it: `digest` is None where it could not be read."""

    def __init__(self, file: str) -> None:
        """Nothing is done yet."""
        self.file = file
        self.identity: tuple[int, ...] = ()
        self.digest: str | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Hash it; a failure is met again by who asks for the digest."""
        try:
            self.identity = identify(self.file)
            self.digest = sha256(self.file)
        except OSError:
            self.digest = None
        finally:
            self.done.set()


class Hashes:
    """The digests of files that were begun early, or are computed when asked for."""

    def __init__(self) -> None:
        """Nothing is begun."""
        self._tasks: dict[str, Task] = {}

    def begin(self, files: Iterable[Name]) -> None:
        """Hash these files in a thread, one after the other; those begun before are not begun again."""
        new = [Task(name) for file in files if (name := os.fspath(file)) not in self._tasks]
        self._tasks.update((task.file, task) for task in new)
        threading.Thread(target=_run_all, args=(new,), name="hashing", daemon=True).start()

    def of(self, file: Name) -> str:
        """The SHA-256 of a file as it is now: what was begun counts if the file was not changed. Raises OSError."""
        name = os.fspath(file)
        task = self._tasks.get(name)
        if task is not None:
            task.done.wait()
            if task.digest is not None and task.identity == identify(file):
                return task.digest
        anew = Task(name)
        anew.identity, digest = identify(file), sha256(file)
        anew.digest = digest
        anew.done.set()
        self._tasks[name] = anew
        return digest


def _run_all(tasks: Iterable[Task]) -> None:
    for task in tasks:
        task.run()


def identify(file: Name) -> tuple[int, ...]:
    """What is another once a file was replaced or written to; raises OSError."""
    status = os.stat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def begin_early(environment: Mapping[str, str], root: str = "/") -> Hashes:
    """Begin with the modules a start will most likely take; with none where the driver is loaded, or two sets fit."""
    hashes = Hashes()
    if not os.path.exists(f"{root}/sys/module/nvidia"):
        version = environment.get("DRIVER_VERSION", "")
        fitting = _in_store(environment.get("STORE_DIR") or DEFAULT_STORE, version)
        fitting = fitting or _on_disk(environment.get("MODULES_DIR") or DEFAULT_FOLDER, version)
        if len(fitting) == 1:
            tree = f"{root.rstrip('/')}/lib/modules/{os.uname().release}/{OURS}"
            hashes.begin(_copied(f"{tree}/{module}.ko", f"{fitting[0]}/{module}.ko") for module in USUAL)
    return hashes


def _copied(copy: str, source: str) -> str:
    """What will be loaded: the copy that an earlier start of this container made, if there is one of that size."""
    with contextlib.suppress(OSError):
        there = os.lstat(copy)
        if stat.S_ISREG(there.st_mode) and there.st_size == os.stat(source).st_size:
            return copy
    return source


def _in_store(store: str, version: str) -> list[str]:
    """Entries for this very kernel, by the texts that their keys hold."""
    wanted = [os.fsencode(f'"{text}"') for text in (os.uname().release, os.uname().version, version) if text]
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{store}/entries"):
            if all(text in _read_key(f"{store}/entries/{name}/key.json") for text in wanted):
                found.append(f"{store}/entries/{name}")
    return found


def _read_key(path: str) -> bytes:
    """What a regular file begins with, b"" for all else: nobody has vouched for the store yet. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.read(descriptor, LARGEST_KEY) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def _on_disk(modules: str, version: str) -> list[str]:
    folder = f"{modules}/{os.uname().release}"
    with contextlib.suppress(OSError):
        return [f"{folder}/{name}" for name in os.listdir(folder) if name.startswith(f"{version}-" if version else "")]
    return []
