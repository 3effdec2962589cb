"""What the kernel tells of devices and modules that come and go: the one place that opens its socket."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any

from driverctr.errors import Code, DriverError
from driverctr.records import frozen

RECEIVE_BUFFER = 16 * 1024 * 1024
"""Bytes the kernel may queue for us: an event takes about 1 KB there, and memory is taken only while it waits."""

NVIDIA_PCI_ID = "10DE:"
"""How PCI_ID of an NVIDIA function's event begins (Linux, drivers/pci/pci-driver.c, pci_uevent)."""


class Subsystem(StrEnum):
    """The kinds of things we listen to, as the kernel names them."""

    PCI = "pci"
    MODULE = "module"


LOST = "lost"
"""The action of an event of our own: the kernel dropped some, so look at everything again."""


@frozen
class Event:
    """One event: the kernel's action (add, remove, bind, unbind, change) and a PCI address or a module's name.

    Where the action is LOST, subsystem and name are empty.
    """

    action: str
    subsystem: str
    name: str


class Events:
    """The kernel's events about NVIDIA's PCI functions and modules; readable in a selector by `fileno`."""

    def __init__(self, monitor: Any) -> None:
        """Take a started pyudev Monitor (https://pyudev.readthedocs.io, pyudev.Monitor)."""
        self._monitor = monitor

    def fileno(self) -> int:
        """For a selector."""
        return int(self._monitor.fileno())

    def read(self) -> tuple[Event, ...]:
        """Everything that has arrived, without waiting; others' devices and modules are left out."""
        found: list[Event] = []
        while True:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # netlink(7): the queue was full, and events are lost
                    raise
                found.append(Event(LOST, "", ""))
                continue
            if device is None:
                return tuple(found)
            if _is_nvidias(device):
                found.append(Event(device.action or "", device.subsystem, device.sys_name))


@contextmanager
def listening() -> Iterator[Events]:
    """Listen while the block runs; look at the node *after* entering it, and nothing that happens is missed.

    The events come from the kernel itself: udev's do not reach a container. In a network namespace of our own too:
    the kernel sends its events to every one that the initial user namespace owns (Linux, lib/kobject_uevent.c).
    Raises DriverError (node-file) where the kernel's socket or libudev is not to be had.
    """
    try:
        import pyudev

        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        for subsystem in Subsystem:
            monitor.filter_by(subsystem.value)
        with suppress(PermissionError):  # wants CAP_NET_ADMIN; a small buffer loses more, and says LOST
            monitor.set_receive_buffer_size(RECEIVE_BUFFER)
        monitor.start()
    except (ImportError, OSError) as error:
        raise DriverError(
            Code.NODE_FILE,
            f"the kernel's device events cannot be heard: {error}",
            "Run the container privileged, from an image with libudev",
        ) from error
    yield Events(monitor)


def _is_nvidias(device: Any) -> bool:
    if device.subsystem == Subsystem.PCI:
        return str(device.properties.get("PCI_ID", "")).upper().startswith(NVIDIA_PCI_ID)
    return str(device.sys_name).startswith("nvidia")
