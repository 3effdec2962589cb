"""The driver container that runs, for a verb beside it: its settings, its log and its end."""

import contextlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

from driverctr import conceal, config, pidfd, pidlock
from driverctr.errors import Code, DriverError
from driverctr.paths import Paths


def pid(paths: Paths) -> int | None:
    """The process that holds the lock, as we see it; None where there is none or it is not visible."""
    return pidlock.holder(paths.pid_file, paths.proc / "locks")


def environment(paths: Paths) -> Mapping[str, str]:
    """What it was started with, as far as it concerns us; raises DriverError (bad-usage) where none runs."""
    if (found := _environ(paths)) is not None:
        return config.of_process(found)
    raise DriverError(
        Code.BAD_USAGE,
        f"--like-running: no driver container that we can see holds {paths.pid_file}",
        "Leave --like-running out, and give the settings in the environment",
    )


def learn_secrets(paths: Paths) -> None:
    """What is secret in its environment, be it ours or not, is concealed from now on."""
    pairs = (os.fsdecode(entry).partition("=") for entry in (_environ(paths) or b"").split(b"\0"))
    conceal.learn_environment({name: value for name, _, value in pairs})


def _environ(paths: Paths) -> bytes | None:
    found = pid(paths)
    try:
        return None if found is None else (paths.proc / str(found) / "environ").read_bytes()
    except OSError:
        return None


def end_with_it(paths: Paths) -> None:
    """Have SIGTERM sent to our main thread as soon as it ends, or now where it has: no runtime knows that we are its.

    The host's hook brings us into a container without being its child (`nsenter`).
    """
    us, found = threading.get_ident(), pid(paths)
    try:
        watched = pidfd.opened(found) if found is not None else None
    except ProcessLookupError:
        watched = None
    if watched is None or pid(paths) != found:
        signal.pthread_kill(us, signal.SIGTERM)
        return

    def watch() -> None:
        select.select([watched], [], [])
        signal.pthread_kill(us, signal.SIGTERM)

    threading.Thread(target=watch, name="container", daemon=True).start()


def log_stream(paths: Paths) -> TextIO:
    """Our stderr and that of the container that runs, as NVIDIA's `update` writes to both (reference B.2).

    Only ours where none runs, it started us, or its stderr cannot be opened (a socket) or is ours too.
    """
    found = pid(paths)
    if found is None or found == os.getppid():
        return sys.stderr
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        other = os.open(paths.proc / str(found) / "fd/2", flags)
    except OSError:
        return sys.stderr
    if os.path.samestat(os.fstat(other), os.fstat(sys.stderr.fileno())):
        os.close(other)
        return sys.stderr
    both = io.BufferedWriter(Both(sys.stderr.fileno(), other))
    return io.TextIOWrapper(both, encoding="utf-8", errors="backslashreplace")


class Both(io.RawIOBase):
    """Two descriptors; the second is never waited for: what does not fit into it is left out."""

    def __init__(self, ours: int, other: int) -> None:
        """Take over `other`."""
        self._ours, self._other = ours, other

    def writable(self) -> bool:
        """For io."""
        return True

    def write(self, data: Any) -> int:
        """Write to both; raises OSError of ours alone."""
        with contextlib.suppress(OSError):
            os.write(self._other, data)
        return os.write(self._ours, data)
