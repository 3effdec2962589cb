"""Where the kernel hangs: nothing more is touched, it is told, and the next start does not pile on."""

import contextlib
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr import markers, report, status, stopping
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts import modules
from driverctr.facts.modules import LoadedModule
from driverctr.facts.tasks import Task
from driverctr.paths import Paths
from driverctr.plan import StepName, make
from driverctr.steps import unload
from driverctr.steps.unload import check_free
from tests.unit.conftest import make_tree
from tests.unit.good_node import facts
from tests.unit.test_lifecycle import Life, life

__all__ = ["life"]

HANG = DriverError(Code.STUCK, "`modprobe nvidia` did not end within 300 s, and no signal ends it", "Reboot the node.")
GOING = LoadedModule("nvidia", "535.1", "", "", "going", 0, ())
RMMOD = Task(55, "rmmod nvidia", "D", "", ("nvidia_exit",))


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
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert failed.value is HANG and life.told[-1] == "undo publish"
    assert said_to_be_stuck(paths)


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


def coming(paths: Paths, *, tool_state: str = "S") -> Path:
    """A node where somebody loads nvidia now; returns the file that tells when it has ended."""
    make_tree(
        paths.root,
        {
            "sys/module/nvidia/refcnt": "1\n",
            "sys/module/nvidia/initstate": "coming\n",
            "proc/55/comm": "modprobe\n",
            "proc/55/status": f"Name:\tmodprobe\nState:\t{tool_state} (x)\n",
        },
    )
    return paths.sys_modules / "nvidia/initstate"


def test_a_load_under_way_at_the_start_is_waited_for_and_no_hang(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    initstate = coming(paths, tool_state="D")
    monkeypatch.setattr("driverctr.survey.survey", lambda *_: facts(stack=modules.read_stack(paths)))
    monkeypatch.setattr(unload, "SETTLE_PAUSE", 0.05)
    initstate.with_name("refcnt").write_text("0\n")
    threading.Timer(0.4, initstate.write_text, ("live\n",)).start()
    with pytest.raises(Stopped):
        life.start.run()
    assert life.told[:1] == ["withdraw"] and life.start.told.phase is not status.Phase.STUCK
    assert life.log.count("load of nvidia has not ended (initstate); pid 55") == 1


def test_a_load_that_does_not_end_is_waited_for_within_limits(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming(paths)
    monkeypatch.setattr(unload, "SETTLE_LIMIT", 0.3)
    monkeypatch.setattr(unload, "SETTLE_PAUSE", 0.05)
    began = time.monotonic()
    unload.settle(life.start.tools)
    assert 0.3 <= time.monotonic() - began < 3


def test_a_module_tool_asleep_in_one_place_of_the_kernel_is_not_waited_for(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming(paths, tool_state="D")
    monkeypatch.setattr(unload, "HANG_SIGN", 0.3)
    monkeypatch.setattr(unload, "SETTLE_PAUSE", 0.05)
    began = time.monotonic()
    unload.settle(life.start.tools)
    assert 0.3 <= time.monotonic() - began < 3


@pytest.mark.parametrize("held", [True, False])
def test_a_signal_ends_the_wait_for_a_load(life: Life, paths: Paths, held: bool) -> None:
    coming(paths)
    made = life.start.tools.signals
    made.arrived = signal.SIGTERM
    began = time.monotonic()
    with pytest.raises(Stopped), made.held() if held else contextlib.nullcontext():
        unload.settle(life.start.tools)
        made.check()
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
    found = report.collect_status(paths)
    assert "load of nvidia" in found["stuck"] and "load of nvidia" in report.format_status(found)


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
