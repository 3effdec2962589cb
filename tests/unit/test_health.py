"""While we wait: what changes is seen, said and mended where safe; markers and status follow; storms are one look."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable

import pytest

from driverctr import config as settings
from driverctr import daemons, devices, firmware, hints, markers, verify
from driverctr.devices import Node
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts import events
from driverctr.facts.events import Event
from driverctr.health import LOOK_EVERY, Health
from driverctr.kmod import Kmod
from driverctr.mounts import driverroot
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.status import Phase, Status
from driverctr.steps import Tools, unload
from driverctr.steps.unload import SETTLE_PAUSE
from driverctr.supervise import SETTLE, Supervisor
from driverctr.syslog import Syslog
from driverctr.verify import Expected, Finding, Part
from tests.unit.conftest import make_tree
from tests.unit.test_processes import signals, starter
from tests.unit.test_verify import ONE, gpu

__all__ = ["signals"]

NODE = Finding(Part.NODE, "nvidia0", "/dev/nvidia0 is missing", gone=True)
UVM = Finding(Part.MODULE, "nvidia-uvm", "nvidia-uvm is not loaded", gone=True)
CORE = Finding(Part.MODULE, "nvidia", "nvidia is not loaded", gone=True)
PATH = Finding(Part.FIRMWARE, "path", "the firmware search path is blank", serves=True, gone=True)
ROOT = Finding(Part.ROOT, "/run/nvidia/driver", "nothing is mounted there", gone=True)
OTHER = Finding(Part.MODULE, "nvidia", "nvidia is version 470.9", code=Code.OTHER_VERSION)
LOST = Finding(Part.GPU, ONE, f"GPU {ONE} has vanished from the bus", code=Code.GPU_LOST)
PARAMETER = Finding(Part.PARAMETER, "nvidia", "nvidia NVreg_A: asked 1, is 0", serves=True)


class Host:
    """A node with a driver that was ready: `wrong` is what the next looks find, acts are noted and put it right."""

    def __init__(self, paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wrong: list[Finding] = []
        self.acts: list[str] = []
        self.fails: DriverError | None = None
        self.told = Status(Phase.READY, 0, 1)
        self.paths = paths
        gpu(paths, ONE, "")
        made = Signals()
        tools = Tools(
            paths, settings.load({}), runner, Kmod(), made, Syslog(paths.root / "log", paths.root), Budget(made, 5)
        )
        monkeypatch.setattr(verify, "look", lambda *_: list(self.wrong))
        monkeypatch.setattr(Kmod, "load", lambda kmod, name, *_: self.act(name))
        monkeypatch.setattr(driverroot, "export", lambda paths, log, substitutes: self.act("/run/nvidia/driver"))
        monkeypatch.setattr(firmware, "restore_path", lambda paths, search: self.act("path"))
        monkeypatch.setattr(devices, "wanted", lambda paths: (Node("nvidia0", 195, 0, 0o666),))
        monkeypatch.setattr(devices, "create", lambda paths, nodes: self.made())
        monkeypatch.setattr(daemons, "find", lambda paths, daemon: None)
        markers.write_ready(paths.run, gds=True, gdrcopy=False, rdma=False)
        markers.write_daemons_status(paths.run, ready=True)
        wish = Expected("535.1", {"nvidia": "c0ffee", "nvidia-uvm": "c0ffee"}, {})
        self.health = Health(tools, wish, self.tell)

    def act(self, subject: str) -> None:
        self.acts.append(subject)
        if self.fails:
            raise self.fails
        self.wrong = [finding for finding in self.wrong if finding.subject != subject]

    def made(self) -> list[str]:
        self.act("nvidia0")
        return []

    def tell(self, **changes: object) -> None:
        self.told = self.told.changed(**changes)

    @property
    def marked(self) -> bool:
        return (self.paths.run / markers.CONTAINER).exists()

    @property
    def log(self) -> str:
        return str(self.health.tools.runner.log.stream.getvalue())  # type: ignore[attr-defined]  # a StringIO


@pytest.fixture
def node(paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(paths, runner, monkeypatch)


def test_where_all_is_well_a_look_changes_nothing_and_the_next_comes_in_a_minute(node: Host) -> None:
    assert node.health.look() == LOOK_EVERY <= 60
    assert node.acts == [] and node.marked and node.told.phase is Phase.READY and not node.told.degraded
    assert node.told.last_check is not None and time.time() - node.told.last_check < 10
    assert node.log == ""


@pytest.mark.parametrize(
    ("wrong", "acts"),
    [
        ([NODE], ["nvidia0"]),
        ([PATH], ["path"]),
        ([UVM], ["nvidia-uvm", "nvidia0"]),
        ([ROOT], ["/run/nvidia/driver"]),
        ([NODE, UVM, CORE, ROOT], ["/run/nvidia/driver", "nvidia", "nvidia-uvm", "nvidia0", "nvidia0"]),
    ],
)
def test_what_is_gone_is_put_back_in_the_order_it_is_needed(node: Host, wrong: list[Finding], acts: list[str]) -> None:
    node.wrong = wrong
    assert node.health.look() == LOOK_EVERY
    assert node.acts == acts and node.marked and node.told.phase is Phase.READY and not node.told.problems
    assert wrong[0].text in node.log and "the driver is as wanted again" in node.log


@pytest.mark.parametrize("wrong", [OTHER, LOST])
def test_what_is_there_but_different_or_beyond_us_is_said_and_not_touched(node: Host, wrong: Finding) -> None:
    node.wrong = [wrong]
    node.health.look()
    assert node.acts == [] and not node.marked
    assert node.told.phase is Phase.NOT_READY and node.told.problems[0]["code"] == wrong.code.value
    assert (node.paths.run / markers.DAEMONS).read_text() == "Ready\n"
    said = node.log
    node.health.look()
    assert node.log == said, "the same is not said every minute"


def test_ready_is_published_again_when_it_is_true_again(node: Host) -> None:
    node.wrong = [LOST]
    node.health.look()
    assert not node.marked
    node.wrong = []
    node.health.look()
    assert node.told.phase is Phase.READY
    assert (node.paths.run / markers.CONTAINER).read_text().splitlines()[1] == "GDS_ENABLED: false"


def test_degraded_is_ready_and_told(node: Host) -> None:
    node.health.lasting = ("GPU 0000:5e:00.0 does not answer nvidia-smi",)
    node.wrong = [PARAMETER]
    node.health.look()
    assert node.marked and node.told.phase is Phase.READY
    assert node.told.degraded == (*node.health.lasting, PARAMETER.text)


def test_a_marker_that_others_removed_stays_away(node: Host) -> None:
    (node.paths.run / markers.CONTAINER).unlink()
    node.health.look()
    node.wrong = [UVM]
    node.health.look()
    assert node.acts and not node.marked and node.told.phase is Phase.READY


def test_a_daemons_end_flips_only_the_daemons_marker(node: Host) -> None:
    node.health.on_daemons(False)
    assert (node.paths.run / markers.DAEMONS).read_text() == "NotReady\n" and node.marked
    assert node.told.degraded == ("a daemon is down and will be started again",)
    node.health.on_daemons(True)
    assert (node.paths.run / markers.DAEMONS).read_text() == "Ready\n"
    assert node.told.daemon_restarts == 1 and not node.told.degraded


def test_what_cannot_be_mended_is_tried_again_with_growing_pauses(node: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    node.fails = DriverError(Code.LOAD_FAILED, "modprobe: no")
    node.wrong = [UVM]
    pauses = []
    for _ in range(5):
        pauses.append(node.health.look())
        node.health.look()
        now += pauses[-1]
    assert pauses == [5, 10, 20, 40, LOOK_EVERY] and len(node.acts) == 5 and not node.marked
    assert "modprobe: no" in node.log
    now += 1000
    node.fails = None
    assert node.health.look() == LOOK_EVERY and node.marked


def test_a_look_at_what_vanishes_is_said_and_the_next_look_tells(node: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(*_: object) -> list[Finding]:
        raise FileNotFoundError(2, "No such file or directory", "/sys/module/nvidia/holders")

    node.wrong = [OTHER]
    node.health.look()
    with monkeypatch.context() as racing:
        racing.setattr(verify, "look", vanish)
        assert node.health.look() == LOOK_EVERY
    assert "/sys/module/nvidia/holders" in node.log and node.told.phase is Phase.NOT_READY
    node.wrong = []
    node.health.look()
    assert node.marked and "the driver is as wanted again" in node.log


def test_a_load_that_hangs_in_the_kernel_ends_the_wait(node: Host) -> None:
    node.fails = DriverError(Code.STUCK, "modprobe hangs")
    node.wrong = [UVM]
    with pytest.raises(DriverError, match="modprobe hangs") as ended:
        node.health.look()
    assert ended.value.code is Code.STUCK and node.acts == ["nvidia-uvm"]


def an_rmmod_under_way(paths: Paths) -> None:
    make_tree(
        paths.root,
        {
            "sys/module/nvidia/refcnt": "0\n",
            "sys/module/nvidia/initstate": "going\n",
            "proc/55/comm": "rmmod\n",
            "proc/55/status": "Name:\trmmod\nState:\tD (x)\n",
            "proc/55/stack": "[<0>] nvidia_exit+0x1/0x9 [nvidia]\n",
        },
    )


def test_while_an_administrators_rmmod_is_under_way_nothing_is_mended(node: Host, paths: Paths) -> None:
    an_rmmod_under_way(paths)
    node.wrong = [UVM, ROOT]
    assert node.health.look() == node.health.look() == SETTLE_PAUSE
    assert node.acts == [] and not node.marked
    assert node.log.count("the unload of nvidia has not ended") == 1
    (paths.sys_modules / "nvidia/initstate").write_text("live\n")
    assert node.health.look() == LOOK_EVERY
    assert node.acts == ["/run/nvidia/driver", "nvidia-uvm", "nvidia0"] and node.marked


def test_an_rmmod_that_hangs_ends_the_wait_with_its_place_in_the_kernel(
    node: Host, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_rmmod_under_way(paths)
    monkeypatch.setattr(unload, "HANG_SIGN", 0.0)
    with pytest.raises(DriverError, match=r"unload of nvidia.*pid 55 .*nvidia_exit") as ended:
        node.health.look()
    assert ended.value.code is Code.STUCK and node.acts == []


def test_the_core_is_not_loaded_where_no_gpu_is_free_for_it(node: Host) -> None:
    (node.paths.pci_devices / ONE / "driver").symlink_to("../../../bus/pci/drivers/vfio-pci")
    node.wrong = [CORE]
    node.health.look()
    assert node.acts == [] and "no GPU is free for the driver" in node.log


def test_a_folder_that_cannot_be_written_is_said_and_mending_goes_on(node: Host) -> None:
    (node.paths.run / "validations").rename(node.paths.run / "away")
    (node.paths.run / "validations").write_text("")
    node.health.on_daemons(False)
    node.wrong = [UVM]
    node.health.look()
    assert node.acts and "could not be written" in node.log


def test_the_kernels_words_are_told_with_a_new_failure_only(node: Host) -> None:
    now = int(time.monotonic() * 1e6)
    old = f"4,1,{now},-;NVRM: old\n"
    make_tree(node.paths.root, {"dev/kmsg": old})
    node.health.look()
    behind = f"4,2,{now - 10**8},-;NVRM: Xid (PCI:0000:3b:00): 79, fallen off\n"  # printk's clock drifts from ours
    (node.paths.root / "dev/kmsg").write_text(old + behind)
    node.wrong = [LOST]
    node.health.look()
    assert "Xid (PCI:0000:3b:00): 79" in node.log and "old" not in node.log
    (problem,) = node.told.problems
    assert problem["kernel_log"] == "NVRM: Xid (PCI:0000:3b:00): 79, fallen off"
    node.health.look()
    assert node.told.problems == (problem,), "what fails still is told with the same words"


class Pipe:
    """A hint that a test gives by writing into a pipe; it concerns us where an x is among what came."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.reads = 0

    def fileno(self) -> int:
        return self.reader

    def read(self) -> bool:
        self.reads += 1
        return b"x" in os.read(self.reader, 65536)


def supervised(paths: Paths, runner: Runner, signals: Signals, look: Callable[[], float], *heard: Pipe) -> None:
    syslog = Syslog(paths.root / "log", paths.root)
    with pytest.raises(Stopped):
        Supervisor(starter(paths, runner, syslog), runner, signals, syslog, lambda live: None, look).wait((), heard)


def test_a_hint_brings_the_look_forward_and_a_storm_of_others_brings_none(
    paths: Paths, runner: Runner, signals: Signals
) -> None:
    pipe, began, looks = Pipe(), time.monotonic(), []

    def look() -> float:
        looks.append(time.monotonic() - began)
        if len(looks) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return 60.0

    def storm() -> None:
        for _ in range(1000):
            os.write(pipe.writer, b".")
            time.sleep(0.001)
        os.write(pipe.writer, b"x")

    threading.Thread(target=storm).start()
    supervised(paths, runner, signals, look, pipe)
    assert looks[0] < 0.5 and looks[1] < 30
    storm_s = looks[1] - looks[0]
    assert pipe.reads <= storm_s / SETTLE + 1, "a storm costs one reading each SETTLE seconds"


def test_the_clock_asks_for_the_look_when_nothing_else_does(paths: Paths, runner: Runner, signals: Signals) -> None:
    times = []

    def look() -> float:
        times.append(time.monotonic())
        if len(times) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 0.3

    supervised(paths, runner, signals, look)
    assert 0.5 < times[-1] - times[0] < 5


def test_mounts_concern_us_only_below_our_folder(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    class Marks:
        """The kernel's: a plain file of a test cannot be polled."""

        def register(self, *_: object) -> None: ...
        def poll(self, *_: object) -> list[object]:
            return []

        def close(self) -> None: ...

    monkeypatch.setattr(select, "epoll", Marks)
    table = paths.proc / "self/mountinfo"
    ours = f"40 30 0:5 / {paths.run} rw shared:1 - tmpfs t rw\n"
    make_tree(paths.root, {"proc/self/mountinfo": ours})
    hint = hints.MountHint(paths)
    assert not hint.read()
    table.write_text(ours + "41 30 0:6 / /var/lib/containers/x rw - overlay o rw\n")
    assert not hint.read()
    table.write_text(ours + f"42 40 0:7 / {paths.run}/driver rw - overlay o rw\n")
    assert hint.read() and not hint.read()
    hint.close()


def test_a_table_that_is_always_readable_is_no_news() -> None:
    with contextlib.closing(hints.MountHint(Paths())) as hint:
        # Other programs of this machine may mount something just now: one quiet moment of many is enough.
        quiet = (select.select([hint], [], [], 0.2)[0] == [] or hint.read() for _ in range(25))
        assert any(moment is True for moment in quiet)


def test_without_hints_the_clock_is_left_and_that_is_said(
    paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise DriverError(Code.NODE_FILE, "no netlink")

    monkeypatch.setattr(events, "listening", refuse)
    with hints.listening(paths, runner.log) as heard:
        assert heard == []
    said = str(runner.log.stream.getvalue())  # type: ignore[attr-defined]  # a StringIO
    assert "changes of mounts are seen by the clock only" in said and "no netlink" in said


def test_an_event_of_a_device_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    class Source:
        queue: tuple[Event, ...] = (Event("remove", "pci", ONE),)

        def fileno(self) -> int:
            return 7

        def read(self) -> tuple[Event, ...]:
            taken, self.queue = self.queue, ()
            return taken

    hint = hints.DeviceHint(Source())  # type: ignore[arg-type]  # the kernel's socket is not for unit tests
    assert hint.fileno() == 7 and hint.read() and not hint.read()


def test_a_phase_that_stays_keeps_its_time() -> None:
    told = Status(Phase.READY, 5, 1).changed(phase=Phase.READY, last_check=9)
    assert (told.since, told.last_check) == (5, 9)
    assert told.changed(phase=Phase.NOT_READY).since > 5
