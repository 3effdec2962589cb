"""Process groups, orphans, the wait for them, and daemons that will not go."""

import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from driverctr import daemons
from driverctr.daemons import Daemon, Running
from driverctr.errors import Code, DriverError, Stopped
from driverctr.paths import Paths
from driverctr.run import PR_SET_CHILD_SUBREAPER, Runner, become_subreaper, end_group, reap, wait_for_end
from driverctr.signals import Signals
from driverctr.supervise import Supervisor
from driverctr.syslog import Syslog
from tests.unit.conftest import FakeBin
from tests.unit.test_processes import DAEMON, fake_daemon, gone, real_proc, send_after, signals, starter

__all__ = ["real_proc", "signals"]


def test_a_limit_ends_those_whom_an_ended_leader_left_behind(runner: Runner, fake_bin: FakeBin, tmp_path: Path) -> None:
    fake_bin.add("leaves", f"/bin/sleep 60 & echo $! > {tmp_path}/left; exit 0")
    with pytest.raises(DriverError, match="did not end within 1 s"):
        runner.run(["leaves"], limit=1)
    assert gone(int((tmp_path / "left").read_text()))


def test_a_group_that_ignores_sigterm_is_killed(runner: Runner, fake_bin: FakeBin, tmp_path: Path) -> None:
    fake_bin.add("deaf", f"trap '' TERM; /bin/sleep 60 & echo $! > {tmp_path}/deaf; wait; wait")
    began = time.monotonic()
    with pytest.raises(DriverError):
        runner.stream(["deaf"], lambda line: None, limit=0.5)
    assert gone(int((tmp_path / "deaf").read_text())) and time.monotonic() - began < 5
    end_group(2**22 + 1)


def test_an_error_in_who_reads_the_lines_ends_the_program(runner: Runner, fake_bin: FakeBin, tmp_path: Path) -> None:
    fake_bin.add("talk", f"echo $$ > {tmp_path}/pid; echo line; exec /bin/sleep 60")
    with pytest.raises(ZeroDivisionError):
        runner.stream(["talk"], lambda line: print(1 // 0), limit=30)
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_a_program_leaves_is_told(runner: Runner, fake_bin: FakeBin) -> None:
    fake_bin.add("bad", r"printf 'caf\351\n' >&2; echo out; exit 9")
    result = runner.run(["bad"], check=False)
    assert (result.status, result.stdout, result.stderr, result.words) == (9, "out\n", "caf\ufffd\n", "caf\ufffd")
    with pytest.raises(DriverError, match=r"`bad` failed: caf") as failed:
        runner.run(["bad"])
    assert failed.value.code is Code.COMMAND_FAILED
    fake_bin.add("silent", "kill -9 $$")
    assert runner.run(["silent"], check=False).words == "exit status -9"
    (fake_bin.folder / "broken").write_text("#!/nowhere/interpreter\n")
    (fake_bin.folder / "broken").chmod(0o755)
    with pytest.raises(DriverError, match="broken"):
        runner.run(["broken"])


def test_a_child_sees_our_environment_and_nothing_else(
    runner: Runner, fake_bin: FakeBin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_POD", "x")
    fake_bin.add("show", "/usr/bin/env; pwd")
    (tmp_path / "here").mkdir()
    said = runner.run(["show"], extra_env={"CC": "gcc-12"}, cwd=tmp_path / "here").stdout.splitlines()
    assert "CC=gcc-12" in said and "LC_ALL=C.UTF-8" in said and said[-1].endswith("/here")
    assert not [line for line in said if "SECRET" in line]


@pytest.mark.parametrize("part", range(2))
def test_an_orphan_becomes_ours_and_is_reaped_once(
    runner: Runner, fake_bin: FakeBin, tmp_path: Path, part: int
) -> None:
    become_subreaper()
    try:
        fake_bin.add("forks", f"/bin/sleep 0.{part + 1} >/dev/null 2>&1 & echo $! > {tmp_path}/orphan")
        runner.run(["forks"])
        orphan = int((tmp_path / "orphan").read_text())
        assert wait_for_end(orphan, 5)
        assert orphan in reap(set())
        assert reap(set()) == [] and wait_for_end(orphan, 0)
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_the_end_of_a_process_that_lives_is_awaited_only_so_long() -> None:
    began = time.monotonic()
    assert not wait_for_end(os.getpid(), 0.2)
    assert 0.2 <= time.monotonic() - began < 2


def test_a_signal_while_undoing_is_only_noted_and_a_sleep_does_not_end_that(signals: Signals) -> None:
    signals.deafen()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    signals.sleep(30)
    signals.check()
    assert signals.arrived == signal.SIGTERM
    with signals.held():
        pass


def test_only_the_first_signal_is_raised(signals: Signals) -> None:
    with pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), signal.SIGQUIT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.signal_number == signals.arrived == signal.SIGQUIT
    with pytest.raises(Stopped), signals.deferred():
        pytest.fail("a signal that has arrived lets nobody sleep")


def test_a_signal_inside_nested_holds_waits_for_the_outermost(signals: Signals) -> None:
    acts = []
    with pytest.raises(Stopped), signals.held():
        with signals.held():
            os.kill(os.getpid(), signal.SIGHUP)
            acts.append("inner")
        acts.append("outer")
    assert acts == ["inner", "outer"]


def test_no_signal_is_lost_whenever_it_comes(signals: Signals) -> None:
    for _ in range(40):
        signals.arrived, signals.count = None, 0
        timer = threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            timer.start()
            for _ in range(1000):
                signals.sleep(5)
        timer.join()
        signals.drain()


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "²", "9" * 40, "9" * 5000, "1 2", "2147483648"])
def test_a_pid_file_with_anything_in_it_is_read(real_proc: Paths, text: str) -> None:
    file = real_proc.root / DAEMON.pid_file
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert daemons.find(real_proc, DAEMON) is None


def test_stopping_spares_who_has_the_pid_now_and_clears_the_leftovers(real_proc: Paths) -> None:
    file = real_proc.root / DAEMON.pid_file
    file.parent.mkdir(parents=True)
    file.write_text(f"{os.getpid()}\n")
    (file.parent / "socket").touch()
    daemons.stop(real_proc, Running(DAEMON, os.getpid(), 1), 1)
    assert not list(file.parent.iterdir())


def test_a_daemon_that_ignores_sigterm_is_killed_after_the_limit(
    real_proc: Paths, runner: Runner, fake_bin: FakeBin
) -> None:
    fake_daemon(fake_bin, real_proc)
    body = "#!/bin/bash\ntrap '' TERM\nexec -a nvidia-fake /bin/sleep 60\n"
    (fake_bin.folder / "body").write_text(body)
    runner.run(["nvidia-fake"])
    running = daemons.find(real_proc, DAEMON)
    assert running is not None
    daemons.stop(real_proc, running, 0.5)
    assert gone(running.pid) and not (real_proc.root / DAEMON.pid_file).exists()


def test_a_daemon_that_says_it_started_and_did_not_is_a_failure(
    real_proc: Paths, runner: Runner, fake_bin: FakeBin
) -> None:
    fake_bin.add("nvidia-fake")
    with pytest.raises(DriverError, match=r"exit status 0.*gave no reason") as failed:
        starter(real_proc, runner, Syslog(real_proc.root / "log", real_proc.root))(DAEMON)
    assert failed.value.code is Code.DAEMON_FAILED and "nvidia-fake --verbose" in failed.value.remedy


def send(path: Path, *messages: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        for message in messages:
            client.sendto(message, str(path))


def test_syslog_hands_over_the_words_without_priority_and_time(tmp_path: Path) -> None:
    syslog = Syslog(tmp_path / "dev/log", tmp_path / "own")
    assert not syslog.is_open and syslog.read() == []
    syslog.open()
    syslog.open()
    send(
        syslog.path,
        b"<29>Nov  4 09:08:07 nvidia-persistenced: Started (104)\0",
        b"<3>no time\n",
        b"plain \xff",
        b"<13>" + b"x" * 20000,
    )
    said = syslog.read()
    assert said[:3] == ["nvidia-persistenced: Started (104)", "no time", "plain \ufffd"]
    assert set(said[3]) == {"x"} and syslog.read() == []
    assert syslog.path.stat().st_mode & 0o777 == 0o666
    syslog.close()
    syslog.close()
    assert not syslog.path.exists() and not syslog.is_open


@pytest.mark.parametrize("refused", [False, True])
def test_syslog_covers_what_the_host_mounted_there_and_uncovers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    calls: list[tuple[str, Path]] = []

    def mount(self: object, source: Path, target: Path, flags: int) -> None:
        if refused:
            raise PermissionError(1, "Operation not permitted")
        calls.append(("mount", target))

    def umount(self: object, target: Path) -> None:
        calls.append(("umount", target))

    monkeypatch.setattr("driverctr.mounts.syscalls.Syscalls.mount", mount)
    monkeypatch.setattr("driverctr.mounts.syscalls.Syscalls.umount", umount)
    host = tmp_path / "log"
    host.touch()
    syslog = Syslog(host, tmp_path / "own")
    if refused:
        with pytest.raises(PermissionError):
            syslog.open()
        assert not syslog.is_open and not (tmp_path / "own/log").exists()
        return
    syslog.open()
    send(tmp_path / "own/log", b"<3>word")
    assert syslog.read() == ["word"]
    syslog.close()
    assert calls == [("mount", host), ("umount", host)]
    assert host.exists() and not (tmp_path / "own/log").exists()


def test_the_cover_of_a_start_that_was_killed_is_taken_away_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("driverctr.mounts.syscalls.Syscalls.mount", lambda *arguments: calls.append("mount"))
    monkeypatch.setattr("driverctr.mounts.syscalls.Syscalls.umount", lambda *arguments: calls.append("umount"))
    covering = tmp_path / "own/log"
    covering.parent.mkdir()
    covering.touch()
    (tmp_path / "log").hardlink_to(covering)  # as a bind mount of it looks
    Syslog(tmp_path / "log", tmp_path / "own").open()
    assert calls == ["umount", "mount"]
    Syslog(tmp_path / "free", tmp_path / "own").open()
    assert not covering.exists()


def supervisor(paths: Paths, runner: Runner, signals: Signals, on_change: Callable[[bool], None]) -> Supervisor:
    syslog = Syslog(paths.root / "log", paths.root)
    return Supervisor(starter(paths, runner, syslog), runner, signals, syslog, on_change, lambda: 60.0)


def test_waiting_wakes_for_nothing_but_events(
    real_proc: Paths, runner: Runner, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[object] = []
    monkeypatch.setattr(Signals, "drain", wakes.append)
    send_after(1, signal.SIGTERM)
    me = Running(DAEMON, os.getpid(), 0)
    with pytest.raises(Stopped):
        supervisor(real_proc, runner, signals, lambda live: None).wait((me,))
    assert wakes == []


def test_a_daemon_that_is_gone_before_the_wait_begins_is_told_and_retried_with_growing_pauses(
    paths: Paths, runner: Runner, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []
    changes: list[bool] = []

    def start(node: Paths, daemon: Daemon, *more: object) -> Running:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise DriverError(Code.DAEMON_FAILED, "no GPU")
        return Running(daemon, os.getpid(), 0)

    def on_change(live: bool) -> None:
        changes.append(live)
        if live:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(daemons, "start", start)
    watching = supervisor(paths, runner, signals, on_change)
    began = time.monotonic()
    monkeypatch.setattr("driverctr.supervise.Watch.__init__.__defaults__", (-1, 0.0, 0.1, None))
    with pytest.raises(Stopped):
        watching.wait((Running(DAEMON, 2**22 + 1, 0),))
    assert changes == [False, True] and watching.restarts == 1
    gaps = [later - earlier for earlier, later in zip([began, *tries], tries, strict=False)]
    # A busy machine wakes us late, never early.
    assert all(pause <= gap < pause + 0.35 for gap, pause in zip(gaps, (0.1, 0.2, 0.4), strict=True))
