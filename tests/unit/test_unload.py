"""Our daemons by identity, and an unload that is whole or changes nothing."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr import daemons, lifecycle
from driverctr.daemons import Daemon, Running
from driverctr.errors import Code, DriverError, Stopped
from driverctr.kmod import Kmod
from driverctr.log import Log
from driverctr.modules import ModuleSet, describe
from driverctr.modules import loaded as modules_loaded
from driverctr.modules.loaded import Build, Record
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, StepName
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.steps import Gained, Tools, unload
from driverctr.steps.devices import DeviceNodes
from driverctr.steps.load import Load
from driverctr.syslog import Syslog
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.good_node import facts
from tests.unit.module_files import write_module
from tests.unit.test_processes import signals
from tests.unit.test_use import loaded

__all__ = ["signals"]

DAEMON = Daemon("nvidia-fake", ("nvidia-fake",), "var/run/fake/fake.pid")
BOOT = 1_000_000


def daemon_in(paths: Paths, pid: int, *, name: str = "nvidia-fake", started: int = 5000, state: str = "S") -> Path:
    """A process in a tree, started 50 s after the boot, and a pid file that names it, written 2 s later."""
    make_tree(
        paths.root,
        {
            "proc/stat": f"btime {BOOT}\n",
            f"proc/{pid}/stat": f"{pid} ({name[:15]}) {state} {' 0' * 18} {started} 0\n",
            f"proc/{pid}/cmdline": f"/usr/bin/{name}\0--persistence-mode\0",
            f"proc/{pid}/fd": None,
            DAEMON.pid_file: f"{pid}\n",
        },
    )
    file = paths.root / DAEMON.pid_file
    os.utime(file, (BOOT + 52, BOOT + 52))
    return file


def test_a_daemon_is_believed_by_name_and_a_start_before_its_pid_file(paths: Paths) -> None:
    daemon_in(paths, 77)
    assert daemons.find(paths, DAEMON) == Running(DAEMON, 77, 5000)


@pytest.mark.parametrize(
    "other",
    [{"name": "postgres"}, {"name": "nvidia-fake2"}, {"state": "Z"}, {"started": 5400}],
    ids=["an innocent", "another name", "dead", "another container's, which was given the pid later"],
)
def test_a_pid_file_alone_is_not_believed(paths: Paths, other: dict[str, str]) -> None:
    daemon_in(paths, 77, **other)  # type: ignore[arg-type]  # a shorthand
    assert daemons.find(paths, DAEMON) is None


def test_who_holds_the_pid_file_open_is_believed_though_the_clock_was_set(paths: Paths) -> None:
    file = daemon_in(paths, 77, started=500_000)
    assert daemons.find(paths, DAEMON) is None
    (paths.proc / "77/fd/3").symlink_to(file)
    (paths.proc / "77/fd/4").symlink_to("/nowhere")
    assert daemons.find(paths, DAEMON) == Running(DAEMON, 77, 500_000)


def test_a_pid_file_that_is_no_file_is_nobody(paths: Paths) -> None:
    (paths.root / DAEMON.pid_file).mkdir(parents=True)
    assert daemons.find(paths, DAEMON) is None


@pytest.mark.allow_process("sleep")
def test_an_innocent_named_by_the_pid_file_is_not_killed(paths: Paths) -> None:
    (paths.root / "proc").symlink_to("/proc")
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        make_tree(paths.root, {DAEMON.pid_file: f"{innocent.pid}\n"})
        daemons.stop(paths, Running(DAEMON, innocent.pid, 0), 0.2)
        assert innocent.poll() is None and not (paths.root / DAEMON.pid_file).exists()
    finally:
        innocent.kill()
        innocent.wait()


class FakeDaemons:
    """Daemons that run, are stopped and are started, noted in one list."""

    def __init__(self) -> None:
        """One runs."""
        self.running = [Running(DAEMON, 7, 1)]
        self.told: list[str] = []

    def find_all(self, paths: Paths) -> tuple[Running, ...]:
        return tuple(self.running)

    def stop(self, paths: Paths, running: Running, limit: float, wait: object = None, **more: object) -> None:
        self.running.remove(running)
        self.told.append(f"stop {running.pid}")

    def start(self, paths: Paths, daemon: Daemon, *more: object) -> Running:
        self.running.append(Running(daemon, 8, 2))
        self.told.append("start")
        return self.running[-1]


@pytest.fixture
def fake_daemons(monkeypatch: pytest.MonkeyPatch) -> FakeDaemons:
    fake = FakeDaemons()
    for name in ("find_all", "stop", "start"):
        monkeypatch.setattr(daemons, name, getattr(fake, name))
    return fake


@pytest.fixture
def tools(paths: Paths, fake_bin: FakeBin, runner: Runner, log: Log) -> Tools:
    """A node with nvidia and nvidia_uvm loaded, our tree of modules, and fakes that unload and load them."""
    release = "6.1.0-1-amd64"
    loaded(paths, "nvidia", 1, "nvidia_uvm")
    loaded(paths, "nvidia_uvm", 0)
    make_tree(paths.root, {"proc/sys/kernel/osrelease": f"{release}\n", "proc/devices": "Character devices:\n"})
    file = paths.modules_tree(release) / "updates/driverctr/nvidia-uvm.ko"
    file.parent.mkdir(parents=True)
    write_module(file, release, build_id=bytes.fromhex("c0ffee11"))
    sysfs = paths.sys_modules
    fake_bin.add("rmmod", f"for name; do /bin/rm -r {sysfs}/$name {sysfs}/*/holders/$name; done 2>/dev/null; true")
    words = f'case "$*" in *--show-depends*) echo "insmod {file}";; *) /bin/mkdir -p {sysfs}/$1;'
    fake_bin.add("modprobe", f"{words} echo 0 > {sysfs}/$1/refcnt; /bin/mkdir -p {sysfs}/nvidia/holders/$1;; esac")
    kmod = Kmod(fake_bin.environment, log)
    syslog = Syslog(Path("/nowhere"), paths.own_run)
    signals = Signals()
    return Tools(paths, settings.load({}), runner, kmod, signals, syslog, Budget(signals, 20))


def somebody_comes(fake_bin: FakeBin, paths: Paths, *, stays: bool) -> None:
    """A process opens the device right before `rmmod nvidia`, which refuses; it may have left when we look again."""
    sysfs = paths.sys_modules
    left = f"echo 2 > {sysfs}/nvidia/refcnt" if stays else f"echo 0 > {sysfs}/nvidia/refcnt"
    goes = f"/bin/rm -r {sysfs}/nvidia_uvm {sysfs}/*/holders/nvidia_uvm; {left}"
    fake_bin.add("rmmod", f'{goes}; echo "rmmod: ERROR: Module nvidia is in use" >&2; exit 1')


def test_a_free_driver_goes_with_its_daemons(tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin) -> None:
    unload.free(tools)
    assert fake_daemons.told == ["stop 7"] and fake_bin.calls == ["rmmod nvidia_uvm nvidia"]


def test_in_use_nothing_is_stopped(tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin) -> None:
    (tools.paths.sys_modules / "nvidia/refcnt").write_text("3\n")
    with pytest.raises(DriverError, match=r"nvidia has refcnt 3 \(1 by nvidia_uvm\): 2 reference") as refused:
        unload.free(tools)
    assert refused.value.code is Code.IN_USE and fake_daemons.told == [] and fake_bin.calls == []


@pytest.mark.parametrize("stays", [True, False])
def test_somebody_comes_between_test_and_rmmod_and_all_is_as_it_was(
    tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin, stays: bool
) -> None:
    somebody_comes(fake_bin, tools.paths, stays=stays)
    with pytest.raises(DriverError) as refused:
        unload.free(tools)
    assert refused.value.code is Code.IN_USE
    assert fake_daemons.told == ["stop 7", "start"]
    assert "modprobe nvidia_uvm" in fake_bin.calls and (tools.paths.sys_modules / "nvidia_uvm/refcnt").exists()


def test_another_build_is_not_loaded_in_place_of_the_one_that_went(
    tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin, log: Log
) -> None:
    somebody_comes(fake_bin, tools.paths, stays=True)
    file = next(tools.paths.root.rglob("nvidia-uvm.ko"))
    write_module(file, "6.1.0-1-amd64", build_id=b"\x01" * 20)
    with pytest.raises(DriverError):
        unload.free(tools)
    assert "modprobe nvidia_uvm" not in fake_bin.calls
    assert "nvidia_uvm was unloaded and cannot be loaded again: that build" in log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_in_a_new_container_what_went_is_loaded_again_from_what_was_recorded(
    tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin, tmp_path: Path
) -> None:
    paths, release = tools.paths, "6.1.0-1-amd64"
    shutil.rmtree(paths.root / "lib")
    found = {
        name: describe(write_module(tmp_path / f"store/{name}.ko", release, build_id=bytes.fromhex("c0ffee11")))
        for name in ("nvidia", "nvidia-uvm")
    }
    module_set = ModuleSet(tmp_path / "store", release, "", "535.1", "open", found)
    given = {"nvidia": ("NVreg_A=1",), "nvidia-uvm": ("uvm_a=1",)}
    make_tree(paths.root, {"proc/self/mountinfo": "", "proc/sys/kernel/random/boot_id": "boot-1"})
    modules_loaded.write(paths, Record(Build(module_set), given))
    placed = paths.modules_tree(release) / "updates/driverctr/nvidia-uvm.ko"
    words = f'case "$*" in *--show-depends*) [ ! -e {placed} ] || echo "insmod {placed}";; *) '
    words += f"/bin/mkdir -p {paths.sys_modules}/$1; echo 0 > {paths.sys_modules}/$1/refcnt;; esac"
    fake_bin.add("modprobe", words)
    fake_bin.add("depmod")
    somebody_comes(fake_bin, paths, stays=True)
    with pytest.raises(DriverError):
        unload.free(tools)
    assert "modprobe nvidia_uvm" in fake_bin.calls and placed.read_bytes() == found["nvidia-uvm"].file.read_bytes()
    assert "uvm_a=1" in (paths.modprobe_d / "nvidia-uvm.conf").read_text()


def test_a_file_that_is_not_the_one_recorded_is_not_loaded_again(
    tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin, tmp_path: Path, log: Log
) -> None:
    paths, release = tools.paths, "6.1.0-1-amd64"
    shutil.rmtree(paths.root / "lib")
    found = {"nvidia-uvm": describe(write_module(tmp_path / "nvidia-uvm.ko", release, build_id=b"\xc0\xff\xee\x11"))}
    make_tree(paths.root, {"proc/sys/kernel/random/boot_id": "boot-1"})
    module_set = ModuleSet(tmp_path, release, "", "535.1", "open", found)
    modules_loaded.write(paths, Record(Build(module_set), {"nvidia-uvm": ()}))
    write_module(tmp_path / "nvidia-uvm.ko", release, "535.2", build_id=b"\xc0\xff\xee\x11")
    fake_bin.add("modprobe")
    somebody_comes(fake_bin, paths, stays=True)
    with pytest.raises(DriverError):
        unload.free(tools)
    assert "modprobe nvidia_uvm" not in fake_bin.calls
    assert "is not the file its manifest describes" in log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_a_kernel_that_is_stuck_is_left_alone(
    tools: Tools, fake_daemons: FakeDaemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(self: Kmod, names: list[str], limit: float) -> None:
        raise DriverError(Code.STUCK, "rmmod hangs")

    monkeypatch.setattr(Kmod, "unload", hangs)
    with pytest.raises(DriverError, match="rmmod hangs"):
        unload.free(tools)
    assert fake_daemons.told == ["stop 7"]


def test_a_daemon_that_does_not_start_again_is_told_and_the_cause_stays_the_first(
    tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Running:
        raise DriverError(Code.DAEMON_FAILED, "no socket")

    monkeypatch.setattr(daemons, "start", fails)
    somebody_comes(fake_bin, tools.paths, stays=True)
    with pytest.raises(DriverError) as refused:
        unload.free(tools)
    assert refused.value.code is Code.IN_USE and "no socket" in log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_the_nodes_come_back_with_the_modules_at_a_stop_that_is_refused(
    tools: Tools, fake_daemons: FakeDaemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Iterator[object]] = []
    monkeypatch.setattr("driverctr.devices.create", lambda paths, nodes: made.append(nodes))
    (tools.paths.sys_modules / "nvidia/refcnt").write_text("3\n")
    with pytest.raises(DriverError):
        Load().undo(tools, {})
    assert len(made) == 1


def test_nodes_that_are_made_after_the_driver_root_are_labelled_too(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled: list[Paths] = []
    monkeypatch.setattr("driverctr.selinux.label_devices", lambda paths, log: labelled.append(paths))
    for made in ([], ["nvidia0"]):
        monkeypatch.setattr("driverctr.devices.create", lambda paths, nodes, made=made: made)
        DeviceNodes().apply(tools, PlannedStep(StepName.DEVICE_NODES, ""), facts(), Gained())
        assert labelled == [tools.paths] * len(made)


def test_where_nobody_asked_for_a_stop_an_unload_has_the_time_of_a_load(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(Kmod, "unload", lambda kmod, names, limit: limits.append(limit))
    tools.budget.begin()  # of a start that failed: nobody waits for its end
    unload.unload_modules(tools)
    assert limits == [tools.config.load_timeout] and tools.budget.for_an_act() > 1000


def test_a_daemon_has_the_time_of_a_load_to_start(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr(daemons, "start", lambda *words: given.extend(words))
    tools.start_daemon(DAEMON)
    assert given[-2:] == [tools.config.load_timeout, tools.budget.wait_unless_hurried]


@pytest.mark.parametrize("fails", [False, True])
def test_a_signal_in_a_load_ends_it_after_the_module_under_way_and_leaves_it_to_the_undo(
    tools: Tools, fake_bin: FakeBin, fails: bool
) -> None:
    def load(kmod: Kmod, name: str, limit: float) -> None:
        tools.signals.arrived = signal.SIGTERM
        fake_bin.log.open("a").write(f"{name}\n")
        if fails:
            raise DriverError(Code.LOAD_FAILED, "`modprobe nvidia` did not end within 12 s and was stopped")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Kmod, "load", load)
        Load()._load(tools, facts(), ("nvidia", "nvidia-uvm"), Gained())
    assert fake_bin.calls == ["nvidia"], "no rmmod either: the undo has its own time"


def test_a_signal_before_anything_is_loaded_leaves_no_record_of_a_load(tools: Tools, fake_bin: FakeBin) -> None:
    shutil.rmtree(tools.paths.sys_modules)
    make_tree(tools.paths.root, {"proc/sys/kernel/random/boot_id": "boot-1"})
    tools.signals.arrived = signal.SIGTERM
    module_set = ModuleSet(Path("/set"), "6.1", "", "535.1", "open", {})
    gained = Gained(build=Build(module_set), parameters={"nvidia": ()})
    Load().apply(tools, PlannedStep(StepName.LOAD, ""), facts(), gained)
    assert fake_bin.calls == [] and modules_loaded.read(tools.paths) is None


@pytest.fixture
def verb(tools: Tools, fake_daemons: FakeDaemons, signals: Signals, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """`driverctr unload` with signals of its own, on a node without mounts."""
    for name in ("propagation.settle", "driverroot.clear"):
        monkeypatch.setattr(f"driverctr.lifecycle.{name}", lambda *_, **more: None)
    (tools.paths.root / "run/nvidia").mkdir(parents=True)
    return replace(tools, signals=signals, budget=Budget(signals, 20))


def test_a_signal_in_the_middle_of_the_verb_lets_it_end(verb: Tools, fake_bin: FakeBin) -> None:
    sysfs = verb.paths.sys_modules
    fake_bin.add("rmmod", f"kill -INT $PPID; /bin/sleep 0.3; for name; do /bin/rm -r {sysfs}/$name; done")
    verb.paths.status_file.parent.mkdir(parents=True)
    verb.paths.status_file.write_text("{}")
    metrics = verb.paths.root / "driverctr.prom"
    metrics.touch()
    with pytest.raises(Stopped):
        lifecycle.unload(replace(verb, config=settings.load({"METRICS_TEXTFILE": str(metrics)})))
    assert not (sysfs / "nvidia").exists() and not verb.paths.status_file.exists() and not metrics.exists()


def test_a_signal_before_the_verb_begins_touches_nothing(verb: Tools, fake_bin: FakeBin) -> None:
    make_tree(verb.paths.root, {"sys/module/nvidia/initstate": "coming\n"})
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Stopped):
        lifecycle.unload(verb)
    assert fake_bin.calls == []
