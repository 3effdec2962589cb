"""Events of the kernel: ours are told plainly, others' are passed over, and what was lost is said."""

import errno
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from driverctr.errors import Code, DriverError
from driverctr.facts import events
from driverctr.facts.events import LOST, Event, Events


@dataclass
class Device:
    """What pyudev makes of one event."""

    action: str
    subsystem: str
    sys_name: str
    properties: dict[str, str] = field(default_factory=dict)


class Monitor:
    """Gives what it was filled with, then nothing."""

    def __init__(self, *queue: Device | OSError) -> None:
        self.queue = list(queue)
        self.told: list[tuple[str, Any]] = []
        self.may_grow = True

    def fileno(self) -> int:
        return 7

    def poll(self, timeout: float) -> Device | None:
        assert timeout == 0
        if not self.queue:
            return None
        first = self.queue.pop(0)
        if isinstance(first, OSError):
            raise first
        return first

    def filter_by(self, subsystem: str) -> None:
        self.told.append(("filter", subsystem))

    def set_receive_buffer_size(self, size: int) -> None:
        if not self.may_grow:
            raise PermissionError(errno.EPERM, "no CAP_NET_ADMIN")
        self.told.append(("buffer", size))

    def start(self) -> None:
        self.told.append(("start", None))


GPU = Device("add", "pci", "0001:01:00.0", {"PCI_ID": "10DE:20B0"})


def test_a_gpu_among_a_storm_of_others_is_found() -> None:
    storm = [Device("add", "pci", f"0000:00:{number:02x}.0", {"PCI_ID": "8086:1234"}) for number in range(32)]
    monitor = Monitor(*storm, GPU, *storm, Device("remove", "module", "nvidia_uvm"), Device("add", "module", "loop"))
    read = Events(monitor).read()
    assert read == (Event("add", "pci", "0001:01:00.0"), Event("remove", "module", "nvidia_uvm"))
    assert Events(monitor).read() == ()


def test_events_the_kernel_dropped_are_said_and_the_rest_is_read() -> None:
    monitor = Monitor(OSError(errno.ENOBUFS, "full"), GPU)
    assert [event.action for event in Events(monitor).read()] == [LOST, "add"]


def test_any_other_failure_of_the_socket_is_raised() -> None:
    with pytest.raises(OSError, match="bad"):
        Events(Monitor(OSError(errno.EBADF, "bad"))).read()


@pytest.mark.parametrize("may_grow", [True, False])
def test_it_listens_to_the_kernel_itself_with_filters_set_before_the_start(
    monkeypatch: pytest.MonkeyPatch, may_grow: bool
) -> None:
    monitor, sources = Monitor(), []
    monitor.may_grow = may_grow
    pyudev = ModuleType("pyudev")

    def from_netlink(context: object, source: str) -> Monitor:
        sources.append(source)
        return monitor

    setattr(pyudev, "Context", object)  # noqa: B010  # a module made here has no such attribute for mypy
    setattr(pyudev, "Monitor", type("Monitor", (), {"from_netlink": staticmethod(from_netlink)}))  # noqa: B010  # as above
    monkeypatch.setitem(sys.modules, "pyudev", pyudev)
    with events.listening() as heard:
        assert heard.fileno() == 7
    assert sources == ["kernel"]
    assert monitor.told[-1] == ("start", None)
    assert {("filter", "pci"), ("filter", "module")} <= set(monitor.told)
    assert (("buffer", events.RECEIVE_BUFFER) in monitor.told) == may_grow


def test_without_libudev_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyudev", None)
    with pytest.raises(DriverError) as failed, events.listening():
        pass
    assert failed.value.code is Code.NODE_FILE
