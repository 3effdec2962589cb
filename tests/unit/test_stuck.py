"""Where the kernel hangs: nothing more is touched, it is told, and the next start does not pile on."""

import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr import markers, status, statustext, statusview, stopping
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts import modules
from driverctr.facts.modules import LoadedModule
from driverctr.facts.tasks import Task
from driverctr.paths import Paths
from driverctr.plan import StepName, make
from driverctr.steps import Tools, unload
from driverctr.steps.unload import check_free
from driverctr.terminal import Paint
from tests.unit.conftest import make_tree
from tests.unit.fake_life import Life, life
from tests.unit.good_node import facts

__all__ = ["life"]

HANG = DriverError(Code.STUCK, "`modprobe nvidia` did not end within 300 s, and no signal ends it", "Reboot the node.")
GOING = LoadedModule("nvidia", "535.1", "", "", "going", 0, ())
RMMOD = Task(55, "rmmod nvidia", "D", "", ("nvidia_exit",), in_driver=True)


def said_to_be_stuck(paths: Paths) -> bool:
    document = status.read(paths)
    return document is not None and document["phase"] == "stuck" and document["failure"]["code"] == "stuck"


def test_a_load_that_hangs_leaves_everything_but_the_markers(life: Life, paths: Paths) -> None:
    life.steps[StepName.LOAD].failures[""] = HANG
    markers.write_digest(paths.run, "42")
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert failed.value is HANG
    assert not [line for line in life.told if line.startswith("undo ")]
    assert said_to_be_stuck(paths) and not (paths.run / markers.DIGEST).exists()


def test_an_unload_that_hangs_at_the_stop_ends_the_stop(life: Life, paths: Paths) -> None:
    life.steps[StepName.LOAD].failures["undo"] = HANG
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert failed.value is HANG
    assert life.told[-1] == "undo load"
    assert said_to_be_stuck(paths)


def test_a_hang_found_at_the_stop_keeps_even_the_daemons(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(tools: object) -> None:
        raise HANG

    monkeypatch.setattr(stopping, "check_free", hang)
    monkeypatch.setattr(stopping, "BUSY_WAIT", 0.1)
    patient(life, 0.1)
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert failed.value is HANG and life.told[-1] == "undo publish"
    assert said_to_be_stuck(paths)


@pytest.mark.parametrize("state", ["coming", "going"])
def test_what_somebody_else_began_is_given_more_time_at_a_stop_than_who_uses_the_driver(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """It may end well; what is called stuck is left as it is, and waits for a reboot."""
    initstate = under_way(paths, state)
    monkeypatch.setattr(stopping, "BUSY_WAIT", 0.1)
    monkeypatch.setattr(stopping, "BUSY_PAUSE", 0.05)
    monkeypatch.setattr(stopping, "check_free", check_free)
    threading.Timer(0.8, shutil.rmtree, (initstate.parent,)).start()
    stop = stopping.Stopping(life.start.tools, [(life.steps[StepName.LOAD], {"by": "load"})], life.start.tell)
    stop.take_down()
    assert life.told == ["undo load"]


def test_what_does_not_end_at_a_stop_leaves_the_time_of_the_undo(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way(paths)
    monkeypatch.setattr(stopping, "BUSY_WAIT", 0.1)
    monkeypatch.setattr(stopping, "check_free", check_free)
    tools = life.start.tools
    stop = stopping.Stopping(tools, [(life.steps[StepName.LOAD], {})], life.start.tell)
    tools.signals.arrived_at = time.monotonic() - tools.budget.seconds + stopping.UNDO_TIME + 1.5
    began = time.monotonic()
    (error,) = stop.find_users()
    assert error.code is Code.STUCK and 1.4 < time.monotonic() - began < 5
    assert stop.patience_with(HANG) == stop.patience_with(DriverError(Code.IN_USE, "")) == 0.1


def test_a_failed_start_whose_unload_hangs_ends_as_stuck(life: Life, paths: Paths) -> None:
    life.steps[StepName.VERIFY].failures[""] = DriverError(Code.GPU_INIT_FAILED, "no GPU")
    life.steps[StepName.LOAD].failures["undo"] = HANG
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert failed.value is HANG and said_to_be_stuck(paths)
    assert "undo driver-root" not in life.told


def test_the_next_start_is_refused_before_anything_is_touched(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = facts(stack={"nvidia": GOING}, hanging=(RMMOD,))
    assert make(settings.load({}), known).blockers[0].code is Code.STUCK
    monkeypatch.setattr("driverctr.survey.survey", lambda *_: known)
    with pytest.raises(DriverError, match=r"unload of nvidia has not ended .*pid 55") as refused:
        life.start.run()
    assert refused.value.code is Code.STUCK and life.told == []
    assert said_to_be_stuck(paths)


def under_way(paths: Paths, state: str = "coming", *, where: str = "nvidia") -> Path:
    """A node where somebody loads or unloads nvidia, and a module tool sleeps in a module; returns its initstate."""
    make_tree(
        paths.root,
        {
            "sys/module/nvidia/refcnt": "1\n",
            "sys/module/nvidia/initstate": f"{state}\n",
            "proc/55/comm": "modprobe\n",
            "proc/55/status": "Name:\tmodprobe\nState:\tD (x)\nSigPnd:\t0000000000000100\n",
            "proc/55/stack": f"[<0>] msleep+0x2d/0x40\n[<0>] init_one+0x1/0x9 [{where}]\n[<0>] finit_module+0x1/0x9\n",
        },
    )
    return paths.sys_modules / "nvidia/initstate"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes tenths of one."""
    monkeypatch.setattr(unload, "HANG_SIGN", 0.3)
    monkeypatch.setattr(unload, "SETTLE_PAUSE", 0.05)


def patient(life: Life, seconds: float) -> Tools:
    """A load may take that many."""
    tools = life.start.tools
    life.start.tools = replace(tools, config=replace(tools.config, load_timeout=seconds))
    return life.start.tools


@pytest.mark.usefixtures("soon")
def test_a_load_under_way_at_the_start_is_waited_for_and_no_hang(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a pod that was killed while it loaded: its modprobe, killed with it, goes on in the kernel."""
    initstate = under_way(paths)
    monkeypatch.setattr("driverctr.survey.survey", lambda *_: facts(stack=modules.read_stack(paths)))
    initstate.with_name("refcnt").write_text("0\n")
    threading.Timer(1.0, initstate.write_text, ("live\n",)).start()
    with pytest.raises(Stopped):
        life.start.run()
    assert life.told[:1] == ["withdraw"] and life.start.told.phase is not status.Phase.STUCK
    assert life.log.count("load of nvidia has not ended (initstate); pid 55") == 1


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("state", ["coming", "going"])
def test_what_does_not_end_has_the_time_of_a_load(life: Life, paths: Paths, state: str) -> None:
    under_way(paths, state, where="mlx5_core")
    began = time.monotonic()
    with pytest.raises(DriverError, match=r"has not ended.*; also asleep: pid 55") as refused:
        unload.settle(patient(life, 0.8))
    assert refused.value.code is Code.STUCK and 0.8 <= time.monotonic() - began < 5


@pytest.mark.usefixtures("soon")
def test_an_rmmod_asleep_in_one_place_of_the_driver_is_not_waited_for(life: Life, paths: Paths) -> None:
    under_way(paths, "going", where="nvidia_uvm")
    began = time.monotonic()
    with pytest.raises(DriverError, match=r"\(initstate\); pid 55 .*msleep < init_one < finit_module") as refused:
        unload.settle(patient(life, 60))
    assert refused.value.code is Code.STUCK and 0.3 <= time.monotonic() - began < 5


def test_a_signal_ends_the_wait_for_a_load(life: Life, paths: Paths) -> None:
    under_way(paths)
    life.start.tools.signals.arrived = signal.SIGTERM
    began = time.monotonic()
    with pytest.raises(Stopped):
        unload.settle(life.start.tools)
    assert time.monotonic() - began < 2


def test_a_module_that_goes_while_it_is_read_is_no_bug(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(paths.root, {"sys/module/nvidia/refcnt": "0\n"})
    monkeypatch.setattr(Path, "is_dir", lambda self: True)  # its holders were there a moment ago
    found = modules.read(paths, "nvidia")
    assert found is not None and found.holders == ()


def test_a_module_that_comes_or_goes_is_neither_free_nor_in_use(life: Life, paths: Paths) -> None:
    make_tree(paths.root, {"sys/module/nvidia/refcnt": "1\n", "sys/module/nvidia/initstate": "coming\n", "proc": None})
    with pytest.raises(DriverError, match="load of nvidia has not ended") as refused:
        check_free(life.start.tools)
    assert refused.value.code is Code.STUCK
    make_tree(paths.root, {"proc/self/mountinfo": ""})
    found = statusview.collect(paths, {})
    assert "load of nvidia" in found["stuck"] and "load of nvidia" in statustext.render(found, Paint(on=False))


def test_a_wrong_parameter_is_no_reason_to_build(life: Life) -> None:
    life.steps[StepName.MODULES].failures["on-disk"] = DriverError(Code.BAD_PARAMETER, "no such parameter")
    with pytest.raises(DriverError, match="no such parameter"):
        life.start.run()
    assert "modules:build" not in life.told


def test_the_limit_of_a_load_is_a_setting() -> None:
    assert settings.load({}).load_timeout == 300 and settings.load({"LOAD_TIMEOUT": "7"}).load_timeout == 7


def test_a_hang_is_named_by_wchan_where_the_stack_is_closed_to_us() -> None:
    unread = replace(RMMOD, stack=(), wchan="0")
    assert str(unread) == "pid 55 (rmmod nvidia), state D, in the kernel: unknown"
    assert str(replace(unread, wchan="msleep")).endswith("in the kernel: msleep")
