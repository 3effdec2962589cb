"""The way down: what is kept and why, how long it may take, and what each further signal does."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import driverctr
from driverctr import daemons, markers, smi, status, stopping
from driverctr.depth import Depth
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts.modules import LoadedModule
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, StepName
from driverctr.run import Runner
from driverctr.settings import OnStop
from driverctr.signals import Signals
from driverctr.status import Phase
from driverctr.steps import Gained, Outcome, Tools
from driverctr.steps.unload import Unload
from tests.unit.conftest import FakeBin
from tests.unit.fake_life import Life, life
from tests.unit.good_node import facts
from tests.unit.test_processes import DAEMON, fake_daemon, gone, real_proc, signals

__all__ = ["life", "real_proc", "signals"]

STAYS = {"load", "firmware", "driver-root", "device-nodes"}
END_GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL of a program that takes too long (run.end_group)."""
BUSY = DriverError(Code.IN_USE, "nvidia has refcnt 3: pid 9 (train.py)")


def configure(life: Life, **changes: object) -> None:
    config = replace(life.start.tools.config, **changes)  # type: ignore[arg-type]  # a test's shorthand
    life.start.tools = replace(life.start.tools, config=config)


def seconds_left(tools: Tools, seconds: float) -> None:
    """The first signal came when that many are left of the stop's time now."""
    tools.signals.arrived_at = time.monotonic() - tools.budget.seconds + seconds


def undone(life: Life) -> set[str]:
    return {line.removeprefix("undo ") for line in life.told if line.startswith("undo ")}


def test_keep_leaves_what_running_processes_need_and_is_a_good_end(life: Life, paths: Paths) -> None:
    configure(life, on_stop=OnStop.KEEP)
    markers.write_digest(paths.run, "42")
    markers.write_ready(paths.run, gds=False, gdrcopy=False, rdma=False)
    with pytest.raises(Stopped) as stopped:
        life.start.run()
    assert stopped.value.was_ready
    assert undone(life) == {"publish", "verify", "daemons", "unload", "module-tree", "modules", "withdraw"}
    document = status.read(paths)
    assert document is not None and document["phase"] == "stopped" and set(document["kept"]) == STAYS
    assert not (paths.run / markers.CONTAINER).exists()
    assert (paths.run / markers.DIGEST).read_text() == "42\n", "k8s-driver-manager is not to evict for the same wish"


def test_keep_is_for_a_driver_that_was_ready_only(life: Life) -> None:
    configure(life, on_stop=OnStop.KEEP)
    life.steps[StepName.VERIFY].failures[""] = DriverError(Code.GPU_INIT_FAILED, "no GPU")
    with pytest.raises(DriverError):
        life.start.run()
    assert undone(life) >= STAYS


def test_in_use_is_told_with_what_was_kept(life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    used = ({"module": "nvidia", "pids": [7]},)
    monkeypatch.setattr(BUSY, "in_use", used)

    def busy(tools: object) -> None:
        raise BUSY

    monkeypatch.setattr(stopping, "check_free", busy)
    monkeypatch.setattr(stopping, "BUSY_WAIT", 0.5)
    markers.write_digest(paths.run, "42")
    began = time.monotonic()
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert failed.value is BUSY and 0.4 < time.monotonic() - began < 5
    document = status.read(paths)
    assert document is not None and document["failure"]["code"] == "in-use" and set(document["kept"]) == STAYS
    assert document["in_use"] == list(used)
    assert (paths.run / markers.DIGEST).exists()


def test_who_uses_the_driver_for_a_moment_is_waited_for(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def busy_at_first(tools: object) -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise BUSY

    monkeypatch.setattr(stopping, "check_free", busy_at_first)
    monkeypatch.setattr(stopping, "BUSY_PAUSE", 0.05)
    with pytest.raises(Stopped):
        life.start.run()
    assert len(tries) == 3 and undone(life) >= STAYS


@pytest.mark.parametrize("code", [Code.IN_USE, Code.STUCK])
def test_looks_count_as_waiting_and_none_is_the_only_one(
    life: Life, monkeypatch: pytest.MonkeyPatch, code: Code
) -> None:
    tries: list[float] = []

    def slow_look(tools: object) -> None:
        tries.append(time.monotonic())
        time.sleep(0.2)
        raise DriverError(code, "not free")

    monkeypatch.setattr(stopping, "check_free", slow_look)
    monkeypatch.setattr(stopping.Stopping, "patience_with", lambda self, error: 0.5)
    monkeypatch.setattr(stopping, "BUSY_PAUSE", 0.02)
    with pytest.raises(DriverError, match="not free"):
        life.start.run()
    assert 2 <= len(tries) <= 4


def test_the_state_is_read_within_what_is_left_of_the_stop(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def read_state(runner: Runner, limit: float = 5.0) -> tuple[()]:
        limits.append(limit)
        return ()

    monkeypatch.setattr(smi, "read_state", read_state)
    seconds_left(life.start.tools, 2)
    with pytest.raises(Stopped):
        life.start.run()
    assert len(limits) == 1 and 1 <= limits[0] <= 2


def test_haste_waits_for_nobody(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(tools: object) -> None:
        raise BUSY

    monkeypatch.setattr(stopping, "check_free", busy)
    monkeypatch.setattr(stopping, "BUSY_WAIT", 60.0)
    made = life.start.tools.signals

    def two_signals() -> None:
        made.count = 2
        os.write(made._wake_writer, b"x")

    threading.Timer(0.3, two_signals).start()
    began = time.monotonic()
    with pytest.raises(DriverError):
        life.start.run()
    assert time.monotonic() - began < 5


def test_what_an_unload_loses_is_read_before_and_told_after(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(runner: Runner, limit: float) -> tuple[str, ...]:
        assert 0 < limit <= smi.STATE_LIMIT
        life.told.append("read state")
        return ("GPU 0000:3b:00.0: 2 MIG devices",)

    monkeypatch.setattr(smi, "read_state", read)
    with pytest.raises(Stopped):
        life.start.run()
    assert life.told.index("read state") < life.told.index("undo daemons")
    assert "lost with the modules: GPU 0000:3b:00.0: 2 MIG devices" in life.log
    configure(life, verify_depth=Depth.DEVICES)
    life.told.clear()
    with pytest.raises(Stopped):
        life.start.run()
    assert "read state" not in life.told


@pytest.mark.parametrize(("version", "known"), [("535.309.01", True), ("470.1", False)])
def test_a_start_reads_the_state_only_of_a_driver_its_own_nvidia_smi_can_talk_to(
    life: Life, monkeypatch: pytest.MonkeyPatch, version: str, known: bool
) -> None:
    monkeypatch.setattr(smi, "read_state", lambda runner, limit=5.0: ("GPU x: MIG mode Enabled",))
    former = LoadedModule("nvidia", version, "", "", "live", 0, ())
    known_facts = facts(stack={"nvidia": former})
    planned = PlannedStep(StepName.UNLOAD, "unload nvidia")
    gained = Unload().apply(life.start.tools, planned, known_facts, Gained()).gained
    assert gained.unloaded == (f"nvidia {version}",)
    assert gained.lost == (("GPU x: MIG mode Enabled",) if known else ())
    assert ("lost with the modules: GPU x: MIG mode Enabled" in life.log) is known
    after = Unload().apply(life.start.tools, planned, facts(), gained).gained
    assert (after.unloaded, after.lost) == (gained.unloaded, gained.lost), "another attempt finds nothing to unload"


def test_modules_that_do_not_go_have_lost_nothing(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smi, "read_state", lambda runner, limit=5.0: ("GPU x: MIG mode Enabled",))
    life.steps[StepName.LOAD].failures["undo"] = DriverError(Code.UNLOAD_FAILED, "rmmod: no")
    with pytest.raises(DriverError):
        life.start.run()
    assert "lost with" not in life.log


def test_a_start_that_fails_after_it_unloaded_the_old_driver_says_so(life: Life) -> None:
    life.steps[StepName.LOAD].failures[""] = DriverError(Code.LOAD_FAILED, "modprobe: no")
    life.start.way_up.gained = replace(life.start.way_up.gained, unloaded=("nvidia 470.1", "nvidia_uvm 470.1"))
    with pytest.raises(DriverError):
        life.start.run()
    assert "nvidia 470.1, nvidia_uvm 470.1 served before this start, was unloaded for it, and cannot return" in life.log


@pytest.mark.parametrize(
    ("code", "ends"), [(Code.DAEMON_FAILED, "undo withdraw"), (Code.STUCK, "daemons")], ids=["cut off", "hangs"]
)
def test_what_fails_once_a_signal_came_is_no_reason_to_try_other_modules(
    life: Life, monkeypatch: pytest.MonkeyPatch, code: Code, ends: str
) -> None:
    step, tools = life.steps[StepName.DAEMONS], life.start.tools
    apply = step.apply

    def cut_off(*how: object) -> Outcome:
        apply(*how)  # type: ignore[arg-type]  # whatever it is given
        tools.signals.arrived = signal.SIGTERM
        raise DriverError(code, "did not end within 12 s")

    monkeypatch.setattr(step, "apply", cut_off)
    with pytest.raises(DriverError if code is Code.STUCK else Stopped):
        life.start.run()
    assert "modules:build" not in life.told and life.told[-1] == ends


def test_a_second_signal_kills_a_daemon_that_is_being_waited_for(
    real_proc: Paths, runner: Runner, fake_bin: FakeBin, signals: Signals
) -> None:
    fake_daemon(fake_bin, real_proc)
    body = "#!/bin/bash\ntrap '' TERM\nexec -a nvidia-fake /bin/sleep 60\n"
    (fake_bin.folder / "body").write_text(body)
    runner.run(["nvidia-fake"])
    deadline = time.monotonic() + 5
    while (running := daemons.find(real_proc, DAEMON)) is None:
        assert time.monotonic() < deadline, "it has its name only after its last exec"
        time.sleep(0.02)
    signals.deafen()
    for delay in (0.1, 0.4):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    daemons.stop(real_proc, running, 30, signals.wait_readable)
    assert 0.3 < time.monotonic() - began < 5 and gone(running.pid)


def test_a_wait_lets_its_time_pass_whatever_else_wakes_it(signals: Signals) -> None:
    reader, writer = os.pipe()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGCHLD)).start()
    began = time.monotonic()
    assert not signals.wait_readable(reader, 0.4)
    assert 0.4 <= time.monotonic() - began < 3
    os.write(writer, b"x")
    assert signals.wait_readable(reader, 30)


CHILD = """
import os, signal, sys, time
from driverctr.signals import Signals
signals = Signals()
signals.install()
signals.what_is_left = lambda: "not taken back: load"
with signals.held():
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    while True:
        time.sleep(60)
"""


@pytest.mark.allow_process(Path(sys.executable).name)
def test_a_third_signal_leaves_at_once_even_from_a_held_act() -> None:
    import subprocess

    sources = str(Path(driverctr.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-Bc", CHILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PYTHONPATH": sources}
    )
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    for _ in range(2):
        child.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=5)[1]
    assert child.returncode == 128 + signal.SIGINT
    assert said == b"signal 2, the third: leaving at once. not taken back: load\n"


def test_what_is_left_names_kept_and_not_yet_undone(life: Life) -> None:
    left = stopping.Stopping(life.start.tools, [(life.steps[StepName.LOAD], {})], life.start.tell)
    left.kept.append(StepName.FIRMWARE)
    assert left.describe_what_is_left() == "not taken back: firmware, load; `driverctr unload` does it"
    left.done.clear()
    left.kept.clear()
    assert "nothing" in left.describe_what_is_left()
    assert life.start.told.phase is Phase.STARTING
