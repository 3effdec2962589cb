"""What wakes the wait before its time: mounts and devices. A hint says only *look*; the look tells what is so.

So no hint can be lost: those that come meanwhile, or were dropped by the kernel, make one look of many.
"""

import contextlib
import select
from collections.abc import Iterator
from typing import Protocol

from driverctr.errors import DriverError
from driverctr.facts import events
from driverctr.facts.events import Events
from driverctr.log import Log
from driverctr.paths import Paths


class Hint(Protocol):
    """Readable in a selector when something has happened."""

    def fileno(self) -> int:
        """For a selector."""
        ...

    def read(self) -> bool:
        """Take what has arrived, without waiting; whether it concerns us."""
        ...


class MountHint:
    """Mounts that come and go below /run/nvidia, of all that our namespace sees.

    The kernel marks a change of the table by POLLERR and POLLPRI on mountinfo (proc_pid_mountinfo(5)). That file is
    always readable, which a selector would take for news: a poll set of its own, readable on a mark, lies between.
    """

    def __init__(self, paths: Paths) -> None:
        """Begin with the table as it is; raises OSError."""
        self._concerned = str(paths.run).encode()
        self._table = (paths.proc / "self/mountinfo").open("rb", buffering=0)
        self._marks = select.epoll()
        self._marks.register(self._table, select.EPOLLPRI | select.EPOLLERR)
        self._known = self._lines()

    def fileno(self) -> int:
        """For a selector."""
        return self._marks.fileno()

    def read(self) -> bool:
        """Whether a line about our folder has changed; the others' lines are not even taken apart."""
        self._marks.poll(0)
        former, self._known = self._known, self._lines()
        return former != self._known

    def _lines(self) -> list[bytes]:
        self._table.seek(0)
        return [line for line in self._table.read().split(b"\n") if self._concerned in line]

    def close(self) -> None:
        """Close both descriptors."""
        self._marks.close()
        self._table.close()


class DeviceHint:
    """NVIDIA's PCI functions and modules that come and go."""

    def __init__(self, source: Events) -> None:
        """Take what `facts.events.listening` gives."""
        self._source = source

    def fileno(self) -> int:
        """For a selector."""
        return self._source.fileno()

    def read(self) -> bool:
        """Whether there was any; that the kernel dropped some counts too."""
        return bool(self._source.read())


@contextlib.contextmanager
def listening(paths: Paths, log: Log) -> Iterator[list[Hint]]:
    """Every hint that is to be had here; without one the look comes by the clock alone."""
    with contextlib.ExitStack() as stack:
        hints: list[Hint] = []
        try:
            hints.append(stack.enter_context(contextlib.closing(MountHint(paths))))
        except OSError as error:
            log.warning(f"changes of mounts are seen by the clock only: {error}")
        try:
            hints.append(DeviceHint(stack.enter_context(events.listening())))
        except DriverError as error:
            log.warning(f"changes of devices are seen by the clock only: {error.message}", code=error.code.value)
        yield hints
