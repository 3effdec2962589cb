"""Processes: ended as groups, known by identity, watched without polling."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driverctr import config as settings
from driverctr import daemons
from driverctr.daemons import Daemon, Running
from driverctr.errors import Code, DriverError, Stopped
from driverctr.log import Log
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import STOP_SIGNALS, Signals
from driverctr.supervise import Supervisor
from driverctr.syslog import Syslog
from driverctr.verbs import make_tools
from tests.unit.conftest import FakeBin

DAEMON = Daemon("nvidia-fake", ("nvidia-fake",), "var/run/fake/fake.pid")


def gone(pid: int, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_time_limit_ends_the_whole_group(runner: Runner, fake_bin: FakeBin, tmp_path: Path) -> None:
    fake_bin.add("slow", f"/bin/sleep 60 & echo $! > {tmp_path}/grandchild; wait")
    with pytest.raises(DriverError, match=r"did not end within 1 s"):
        runner.run(["slow"], limit=1)
    assert gone(int((tmp_path / "grandchild").read_text()))


@pytest.fixture
def unkillable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs that no signal reaches, as in state D, until the test has ended."""
    groups: set[int] = set()
    with monkeypatch.context() as patched:
        patched.setattr("driverctr.run.KILL_LIMIT", 0.1)
        patched.setattr(os, "killpg", lambda group, number: groups.add(group))
        yield
    for group in groups:
        os.killpg(group, signal.SIGKILL)


@pytest.mark.usefixtures("unkillable")
@pytest.mark.parametrize("way", ["run", "stream"])
def test_a_program_that_sigkill_does_not_end_is_left(runner: Runner, fake_bin: FakeBin, way: str) -> None:
    fake_bin.add("slow", "exec /bin/sleep 20")
    began = time.monotonic()
    with pytest.raises(DriverError, match=r"did not end within 0 s; not even SIGKILL.*pid \d+ hangs") as failed:
        runner.run(["slow"], limit=0.2) if way == "run" else runner.stream(["slow"], print, limit=0.2)
    assert failed.value.code is Code.COMMAND_FAILED and time.monotonic() - began < 5


@pytest.mark.usefixtures("unkillable")
def test_a_signal_stays_the_reason_though_the_program_hangs(
    signals: Signals, runner: Runner, fake_bin: FakeBin
) -> None:
    fake_bin.add("slow", "exec /bin/sleep 20")
    send_after(0.3, signal.SIGTERM)
    began = time.monotonic()
    with pytest.raises(Stopped):
        runner.run(["slow"])
    assert time.monotonic() - began < 5


def test_output_is_handed_over_line_by_line(runner: Runner, fake_bin: FakeBin) -> None:
    fake_bin.add("talk", "printf 'one\\ntwo\\nthree'; exit 3")
    lines: list[str] = []
    assert runner.stream(["talk"], lines.append, limit=10) == 3
    assert lines == ["one", "two", "three"]


def test_a_missing_program_is_told_with_the_path(runner: Runner) -> None:
    with pytest.raises(DriverError, match="was not found on PATH") as failed:
        runner.run(["nothing-there"])
    assert failed.value.code is Code.COMMAND_FAILED


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Signals as installed, and the test runner's own afterwards."""
    former = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGCHLD, signal.SIGPIPE)}
    made = Signals()
    made.install()
    yield made
    signal.set_wakeup_fd(-1)
    for number, handler in former.items():
        signal.signal(number, handler)


def starter(paths: Paths, runner: Runner, syslog: Syslog) -> Callable[[Daemon], Running]:
    """As Tools.start_daemon is, for a Supervisor."""
    return lambda daemon: daemons.start(paths, daemon, runner, syslog, 60)


def send_after(seconds: float, number: int) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


def test_a_signal_in_the_middle_of_a_child_ends_its_group_at_once(
    signals: Signals, runner: Runner, fake_bin: FakeBin, tmp_path: Path
) -> None:
    fake_bin.add("make", f"/bin/sleep 60 & echo $! > {tmp_path}/cc1; wait")
    send_after(0.5, signal.SIGTERM)
    began = time.monotonic()
    with pytest.raises(Stopped):
        runner.stream(["make"], lambda line: None, limit=60)
    assert time.monotonic() - began < 2.5
    assert gone(int((tmp_path / "cc1").read_text()))


@pytest.mark.parametrize("way", ["run", "stream"])
def test_a_signal_at_the_birth_of_a_child_ends_it_too(
    signals: Signals, fake_bin: FakeBin, log: Log, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    fake_bin.add("make", "exec /bin/sleep 60")
    born: list[int] = []
    popen = Runner._popen

    def birth(runner: Runner, *how: Any) -> Any:
        child = popen(runner, *how)
        born.append(child.pid)
        os.kill(os.getpid(), signal.SIGTERM)
        return child

    monkeypatch.setattr(Runner, "_popen", birth)
    runner = Runner(fake_bin.environment, log, signals.held)
    with pytest.raises(Stopped):
        runner.run(["make"]) if way == "run" else runner.stream(["make"], print, limit=60)
    assert len(born) == 1 and gone(born[0])


def test_the_program_holds_signals_while_a_child_is_born(paths: Paths, log: Log) -> None:
    tools = make_tools(settings.load({}), log, paths)
    assert tools.runner.held == tools.signals.held and tools.kmod.wait == tools.budget.wait


def test_a_held_signal_waits_for_the_end_of_the_act(signals: Signals) -> None:
    acts = []
    with pytest.raises(Stopped) as stopped, signals.held():
        os.kill(os.getpid(), signal.SIGTERM)
        acts.append("whole")
    assert acts == ["whole"] and stopped.value.signal_number == signal.SIGTERM


def test_a_sleep_is_ended_by_a_signal_and_none_is_lost(signals: Signals) -> None:
    send_after(0.2, signal.SIGHUP)
    began = time.monotonic()
    with pytest.raises(Stopped):
        signals.sleep(30)
    assert time.monotonic() - began < 5
    signals.deafen()
    os.kill(os.getpid(), signal.SIGTERM)


def fake_daemon(fake_bin: FakeBin, paths: Paths) -> Path:
    """A program that leaves a daemon of its own name behind, with a pid file, and ends when that has its name."""
    pid_file = paths.root / DAEMON.pid_file
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    named = "until /bin/grep -qa '^nvidia-fake' /proc/$!/cmdline; do :; done"
    fake_bin.add("nvidia-fake", f"{fake_bin.folder}/body >/dev/null 2>&1 & echo $! > {pid_file}; {named}")
    (fake_bin.folder / "body").write_text("#!/bin/bash\nexec -a nvidia-fake /bin/sleep 60\n")
    (fake_bin.folder / "body").chmod(0o755)
    return pid_file


@pytest.fixture
def real_proc(paths: Paths) -> Paths:
    (paths.root / "proc").symlink_to("/proc")
    return paths


def test_a_daemon_is_started_found_watched_restarted_and_stopped(
    real_proc: Paths, runner: Runner, fake_bin: FakeBin, signals: Signals
) -> None:
    fake_daemon(fake_bin, real_proc)
    runner.run(["nvidia-fake"])
    first = daemons.find(real_proc, DAEMON)
    assert first is not None
    changes: list[bool] = []

    def on_change(all_live: bool) -> None:
        changes.append(all_live)
        if all_live:
            os.kill(os.getpid(), signal.SIGTERM)

    syslog = Syslog(real_proc.root / "log", real_proc.root)
    supervisor = Supervisor(starter(real_proc, runner, syslog), runner, signals, syslog, on_change, lambda: 60.0)
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(Stopped) as stopped:
        supervisor.wait((first,))
    assert stopped.value.signal_number == signal.SIGTERM
    assert changes == [False, True]
    second = daemons.find(real_proc, DAEMON)
    assert second is not None and second.pid != first.pid
    daemons.stop(real_proc, second, 5)
    assert gone(second.pid)
    assert not (real_proc.root / DAEMON.pid_file).exists()


def test_a_pid_file_that_points_at_an_innocent_process_is_not_believed(real_proc: Paths) -> None:
    file = real_proc.root / DAEMON.pid_file
    file.parent.mkdir(parents=True)
    file.write_text(f"{os.getpid()}\n")
    assert daemons.find(real_proc, DAEMON) is None


def test_the_reason_a_daemon_tells_only_syslog_is_in_the_error(
    real_proc: Paths, runner: Runner, fake_bin: FakeBin
) -> None:
    syslog = Syslog(real_proc.root / "log", real_proc.root)
    syslog.open()
    words = "b'<27>Nov 24 00:31:19 x: no GPU'"
    send = f"import socket,sys; socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM).sendto({words},sys.argv[1])"
    fake_bin.add("nvidia-fake", f'/usr/bin/python3 -c "{send}" {syslog.path}; exit 1')
    with pytest.raises(DriverError, match="x: no GPU") as failed:
        starter(real_proc, runner, syslog)(DAEMON)
    assert failed.value.code is Code.DAEMON_FAILED
    syslog.close()
    assert not syslog.path.exists()
