"""How long a stop may take: one budget from its first signal on, whatever hangs."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from driverctr import config as settings
from driverctr import daemons, run, smi, stopping
from driverctr.errors import Code, DriverError, Stopped
from driverctr.kmod import Kmod
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from tests.unit.conftest import FakeBin
from tests.unit.fake_life import Life, life
from tests.unit.test_processes import DAEMON, gone, real_proc, signals
from tests.unit.test_stopping import END_GRACE, seconds_left

__all__ = ["life", "real_proc", "signals"]


def test_a_stop_has_one_budget_for_all_its_acts_from_its_first_signal_on(signals: Signals) -> None:
    budget = Budget(signals, 20.0)
    budget.begin()
    assert budget.for_an_act() == float("inf") and budget.for_others(60.0, 0.5) == 60.0, "nobody is in a hurry"
    signals.deafen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert 16 < budget.for_an_act() <= 17 and budget.for_others(3.0) == 3.0
    assert 9 < budget.for_others(60.0, 0.5) <= 10 and budget.for_others(3.0, 0.5) == 3.0
    assert signals.arrived_at is not None
    signals.arrived_at -= 25
    assert budget.for_others(3.0) == budget.for_others(3.0, 0.5) == budget.for_an_act() == Budget.LEAST
    os.kill(os.getpid(), signal.SIGTERM)
    assert budget.for_others(3.0) == budget.for_others(3.0, 0.5) == 0.0 and budget.for_an_act() == Budget.LEAST
    assert time.monotonic() - signals.arrived_at > 24, "a second signal gives no time back"


def test_an_act_that_the_signal_meets_leaves_half_of_the_stop_for_the_undo(signals: Signals) -> None:
    budget = Budget(signals, 20.0)
    signals.deafen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert 9 < budget.for_an_act() <= 10
    budget.begin()
    assert 16 < budget.for_an_act() <= 17


@pytest.mark.parametrize(("seconds", "most"), [(2.0, 60), (60.0, 0.5)])
def test_a_signal_cuts_the_wait_for_an_act_that_had_more_time(signals: Signals, seconds: float, most: float) -> None:
    reader, writer = os.pipe()
    budget = Budget(signals, seconds)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    with pytest.raises(Stopped), signals.held():
        assert not budget.wait(reader, most)
        timer.join()
    assert min(1.2, most) <= time.monotonic() - began < 5
    os.write(writer, b"x")
    assert budget.wait(reader, 60)


@pytest.mark.parametrize("way", ["modprobe", "rmmod", "daemon"])
def test_what_hangs_when_the_signal_comes_ends_in_the_time_of_the_stop(
    life: Life, fake_bin: FakeBin, signals: Signals, way: str
) -> None:
    for name in ("modprobe", "rmmod", DAEMON.name):
        fake_bin.add(name, "exec /bin/sleep 60")
    budget = Budget(signals, 2.0)
    kmod = Kmod(fake_bin.environment, wait=budget.wait)
    tools = replace(life.start.tools, signals=signals, budget=budget, kmod=kmod)
    acts: dict[str, Callable[[], object]] = {
        "modprobe": lambda: kmod.load("nvidia", 300),
        "rmmod": lambda: kmod.unload(["nvidia"], 300),
        "daemon": lambda: tools.start_daemon(DAEMON),
    }
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    with pytest.raises(DriverError, match=r"did not end within [1-3] s and was stopped"), signals.held():
        acts[way]()
    assert 1 < time.monotonic() - began < 6


def nvidias_way(fake_bin: FakeBin, paths: Paths) -> None:
    """As nvidia-persistenced starts: a child in a session of its own has a pid file, and hangs where GPUs are opened.

    The parent waits for its child's word (NVIDIA's nvidia-persistenced.c, daemonize). No other starts beside it.
    """
    pid_file = paths.root / DAEMON.pid_file
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    body = fake_bin.folder / "body"
    body.write_text(f"#!/bin/bash\necho $$ >{pid_file}\nexec -a {DAEMON.name} /bin/sleep 60\n")
    body.chmod(0o755)
    words = f"[ ! -e {pid_file} ] || exit 1\n/usr/bin/setsid {body} >/dev/null 2>&1 &\nwait"
    fake_bin.add(DAEMON.name, words)


@pytest.fixture
def found(real_proc: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The daemons that lived; none outlives its test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def signals_once_it_lives(paths: Paths, pids: list[int], *delays: float) -> None:
    def watch() -> None:
        deadline = time.monotonic() + 10
        while (living := daemons.find(paths, DAEMON)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if living is not None:
            pids.append(living.pid)
        for delay in delays:
            time.sleep(delay)
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch).start()


@pytest.mark.parametrize("way", ["late", "torn", "let end", "hurried"])
def test_a_daemon_whose_start_is_cut_off_does_not_live_on(
    life: Life, real_proc: Paths, fake_bin: FakeBin, signals: Signals, found: list[int], way: str
) -> None:
    nvidias_way(fake_bin, real_proc)
    tools = replace(life.start.tools, signals=signals, budget=Budget(signals, 60 if way == "hurried" else 3))
    tools = replace(tools, config=replace(tools.config, load_timeout=1 if way == "late" else 60))
    delays = {"late": (), "torn": (0.1,), "let end": (0.1,), "hurried": (0.1, 0.5)}[way]
    signals_once_it_lives(real_proc, found, *delays)
    began = time.monotonic()
    with pytest.raises(Stopped if way == "torn" else DriverError):
        if way == "late" or way == "torn":
            tools.start_daemon(DAEMON)
        else:
            with signals.held():
                tools.start_daemon(DAEMON)
    assert time.monotonic() - began < 8
    assert len(found) == 1 and gone(found[0], 0.5) and daemons.find(real_proc, DAEMON) is None
    assert not (real_proc.root / DAEMON.pid_file).exists(), "the next start would fail beside it"
    assert f"{DAEMON.name} (pid {found[0]}), which was not up yet: stopped" in life.log


@pytest.mark.parametrize(("left", "limit", "kill_limit"), [(20, 10, 5), (14.5, 7.25, 4.25), (2, 1, 1)])
def test_a_daemon_leaves_time_for_the_modules(
    life: Life, monkeypatch: pytest.MonkeyPatch, left: float, limit: float, kill_limit: float
) -> None:
    given: list[float] = []
    monkeypatch.setattr(
        daemons, "stop", lambda paths, running, limit, wait, kill_limit: given.extend((limit, kill_limit))
    )
    life.start.tools.budget.begin()
    seconds_left(life.start.tools, left)
    life.start.tools.stop_daemon(daemons.Running(DAEMON, 7, 1))
    assert given == pytest.approx([limit, kill_limit], abs=0.3)


class Clock:
    """A monotonic clock that somebody else moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("busy", [Code.IN_USE, Code.STUCK])
@pytest.mark.parametrize("seconds", [15.0, 25.0, 120.0])
def test_a_stop_in_which_all_hang_one_after_the_other_ends_in_its_time(
    life: Life, monkeypatch: pytest.MonkeyPatch, seconds: float, busy: Code
) -> None:
    """Somebody uses the driver at first; nvidia-smi, a daemon and rmmod use up what they are given, and are killed."""
    clock, tools = Clock(), life.start.tools
    monkeypatch.setattr("driverctr.signals.time", clock)
    budget = Budget(tools.signals, seconds)
    tools.signals.arrived_at = clock.now
    life.start.tools = replace(tools, budget=budget)

    def stop(paths: Paths, running: object, limit: float, wait: object, kill_limit: float) -> None:
        clock.now += limit + kill_limit

    def read_state(runner: Runner, limit: float) -> tuple[str, ...]:
        clock.now += limit + END_GRACE + run.KILL_LIMIT
        return ()

    monkeypatch.setattr(daemons, "stop", stop)
    monkeypatch.setattr(smi, "read_state", read_state)
    stopping_now = stopping.Stopping(life.start.tools, [], life.start.tell)
    budget.begin()
    clock.now += stopping_now.patience_with(DriverError(busy, ""))
    stopping_now.read_state()
    life.start.tools.stop_daemon(daemons.Running(DAEMON, 7, 1))
    clock.now += budget.for_an_act() + run.KILL_LIMIT
    assert clock.now - 1000 <= seconds + Budget.LEAST


@pytest.mark.parametrize("seconds", [15.0, 25.0, 120.0])
def test_a_modprobe_that_the_signal_meets_and_then_rmmod_end_in_the_time_of_the_stop(
    signals: Signals, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Clock()
    monkeypatch.setattr("driverctr.signals.time", clock)
    budget = Budget(signals, seconds)
    signals.arrived_at = clock.now
    clock.now += budget.for_an_act() + run.KILL_LIMIT
    budget.begin()
    clock.now += budget.for_others(stopping.BUSY_WAIT)
    clock.now += budget.for_an_act() + run.KILL_LIMIT
    assert clock.now - 1000 <= seconds + Budget.LEAST


def test_the_time_a_stop_takes_is_below_the_grace_period_of_kubernetes() -> None:
    assert settings.load({}).stop_timeout + Budget.LEAST + 2 < 30
