"""The driver container that runs, as a verb beside it sees it: whose settings it has, and where its log goes."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driverctr import config, instance
from driverctr.errors import Code, DriverError, Stopped
from driverctr.log import Log
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Signals
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.test_processes import gone, signals

__all__ = ["signals"]

PID = 4711


def running(paths: Paths, environ: bytes = b"", pid: int = PID) -> Path:
    """A process that holds the lock, by a /proc of its own; returns its folder."""
    make_tree(paths.root, {"run/nvidia/nvidia-driver.pid": f"{pid}\n", f"proc/{pid}/fd": None})
    found = paths.pid_file.stat()
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    (paths.proc / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE {pid} {file} 0 EOF\n")
    folder = paths.proc / str(pid)
    (folder / "environ").write_bytes(environ)
    return folder


def test_its_settings_are_read_whole_and_nothing_but_settings(paths: Paths) -> None:
    entries = (
        b"DRIVER_CONFIG_DIGEST=a=b\nMAX_THREADS=9 $(touch /tmp/x) `id` ' \"",
        b"MODULES_DIR=/mod\xff",
        b"PATH=/usr/bin",
        b"https_proxy=http://proxy",
        b"KUBERNETES_SERVICE_HOST=10.0.0.1",
        b"LD_PRELOAD=/evil.so",
        b"no value",
        b"",
    )
    running(paths, b"\0".join(entries))
    assert instance.environment(paths) == {
        "DRIVER_CONFIG_DIGEST": "a=b\nMAX_THREADS=9 $(touch /tmp/x) `id` ' \"",
        "MODULES_DIR": "/mod\udcff",
        "PATH": "/usr/bin",
        "https_proxy": "http://proxy",
    }
    assert config.of_process(b"") == {}


@pytest.mark.parametrize("seen", [False, True])
def test_without_one_that_we_see_there_are_no_settings(paths: Paths, seen: bool) -> None:
    if seen:
        (running(paths) / "environ").unlink()
    with pytest.raises(DriverError, match="no driver container that we can see") as refused:
        instance.environment(paths)
    assert refused.value.code is Code.BAD_USAGE


@contextmanager
def own_stderr(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stderr of our own, as a file."""
    with file.open("w") as stream, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stream)
        yield


def test_what_is_said_beside_it_is_in_its_log_too(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = running(paths)
    (folder / "fd/2").write_text("before\n")
    ours = paths.root / "ours"
    with own_stderr(ours, monkeypatch):
        Log(stream=instance.log_stream(paths)).info("größe")
    assert ours.read_text().endswith(" größe\n")
    assert (folder / "fd/2").read_text() == f"before\n{ours.read_text()}"


def test_a_log_that_takes_nothing_any_more_holds_nobody_up(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = running(paths)
    os.mkfifo(folder / "fd/2")
    reader = os.open(folder / "fd/2", os.O_RDONLY | os.O_NONBLOCK)
    with own_stderr(paths.root / "ours", monkeypatch):
        log = Log(stream=instance.log_stream(paths))
        for _ in range(300):
            log.info("x" * 1000)
        os.close(reader)
        log.info("the last")
    assert (paths.root / "ours").read_text().count("\n") == 301


@pytest.mark.parametrize(
    "case", ["nobody runs", "it started us", "its stderr is ours", "its stderr cannot be opened", "nobody reads"]
)
def test_nothing_is_said_twice_or_into_the_void(paths: Paths, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = paths.root / "ours"
    with own_stderr(ours, monkeypatch):
        if case != "nobody runs":
            folder = running(paths, pid=os.getppid() if case == "it started us" else PID)
            if case == "nobody reads":
                os.mkfifo(folder / "fd/2")
            elif case != "its stderr cannot be opened":
                (folder / "fd/2").hardlink_to(ours)
        Log(stream=instance.log_stream(paths)).info("once")
    assert ours.read_text().count("once") == 1


@pytest.mark.allow_process("sleep")
@pytest.mark.parametrize("ending", ["before", "meanwhile"])
def test_who_is_beside_it_ends_within_a_second_of_its_end_with_all_he_started(
    paths: Paths, runner: Runner, fake_bin: FakeBin, signals: Signals, ending: str
) -> None:
    container = subprocess.Popen(["sleep", "60"])
    running(paths, pid=container.pid)
    left = paths.root / "left"
    fake_bin.add("make", f"/bin/sleep 60 & echo $! >{left}; wait")
    ended: list[float] = []

    def end() -> None:
        container.kill()
        ended.append(time.monotonic())
        container.wait()

    if ending == "before":
        end()
    else:
        threading.Timer(0.3, end).start()
    with pytest.raises(Stopped) as stopped:
        instance.end_with_it(paths)
        runner.stream(["make"], lambda line: None, limit=30)
    assert stopped.value.signal_number == signal.SIGTERM and time.monotonic() - ended[0] < 1.0
    assert ending == "before" or gone(int(left.read_text()))


def test_where_none_runs_any_more_who_would_be_beside_it_ends_at_once(paths: Paths, signals: Signals) -> None:
    with pytest.raises(Stopped):
        instance.end_with_it(paths)
