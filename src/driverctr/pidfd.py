"""Descriptors that stand for a process: readable when it has ended; on old kernels made of a pipe and a look at /proc.

pidfd_open(2) is there since Linux 5.3, pidfd_send_signal(2) since 5.1; Python leaves out what its C library had not.
"""

import errno
import os
import select
import signal
from pathlib import Path

LOOK_EVERY = 0.1
"""Seconds between two looks at a process that no descriptor of the kernel's stands for."""


def lacking() -> bool:
    """Whether the kernel, or Python, has no pidfd_open."""
    try:
        os.close(_of_kernel(os.getpid()))
    except OSError as error:
        return error.errno == errno.ENOSYS
    return False


def opened(pid: int) -> int:
    """A descriptor of a process, for a selector and `os.close`; raises ProcessLookupError where there is none."""
    try:
        return _of_kernel(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    if (started := _start_of(pid)) is None:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    import threading  # here: on most kernels none is needed

    reader, writer = os.pipe2(os.O_CLOEXEC)
    threading.Thread(target=_watch, args=(pid, started, writer), name=f"end of {pid}", daemon=True).start()
    return reader


def send(descriptor: int, pid: int, number: int) -> None:
    """Send a signal to the process that `opened` gave a descriptor of; raises ProcessLookupError where it has ended.

    Without the kernel's descriptors another process may have been given the pid since the last look at it.
    """
    try:
        signal.pidfd_send_signal(descriptor, number)
        return
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EBADF):  # EBADF: a pipe of ours
            raise
    if select.select([descriptor], [], [], 0)[0]:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    os.kill(pid, number)


def _of_kernel(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None


def _start_of(pid: int) -> str | None:
    """When a process began, in ticks since boot; None where it has ended, also where nobody has reaped it yet.

    A process whose first thread has ended lives on in its others (proc_pid_stat(5)).
    """
    folder = Path("/proc") / str(pid)
    try:
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        if fields[0] in "ZX" and len(os.listdir(folder / "task")) < 2:  # noqa: PTH208  # counted, not made into paths
            return None
    except OSError:
        return None
    return fields[19]


def _watch(pid: int, started: str, writer: int) -> None:
    """Close the pipe when the process has ended, or leave when nobody reads it any more (POLLERR, poll(2))."""
    poller = select.poll()
    poller.register(writer, 0)
    while _start_of(pid) == started and not poller.poll(LOOK_EVERY * 1000):
        pass
    os.close(writer)
