"""`driverctr status --wait ready`: woken by what happens, from wherever it begins, and by nothing else."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driverctr import markers, pidfd, statuswait
from driverctr.inotify import Watcher
from driverctr.paths import Paths
from tests.unit import status_nodes
from tests.unit.conftest import make_tree

LONG = 60.0
"""Seconds that no test waits for: an event that is missed shows as that."""


@contextmanager
def later(act: Callable[[], object], seconds: float = 0.3) -> Iterator[None]:
    """Have something happen while the block waits."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def seconds_of(paths: Paths, limit: float = LONG) -> tuple[bool, float]:
    began = time.monotonic()
    return statuswait.wait(paths.root, limit), time.monotonic() - began


def test_one_that_is_ready_is_not_waited_for(paths: Paths) -> None:
    assert statuswait.wait(status_nodes.serving(paths).root, 0)


def test_the_time_that_is_given_is_waited_and_no_more(paths: Paths) -> None:
    ready, took = seconds_of(status_nodes.failed(paths), 0.4)
    assert not ready and 0.4 <= took < 10


@pytest.mark.parametrize("there", ["nothing", "run", "run/nvidia", "run/nvidia/driverctr"])
def test_a_start_that_has_not_begun_is_waited_for_from_any_folder_that_is_there(paths: Paths, there: str) -> None:
    make_tree(paths.root, {there: None})
    with later(lambda: status_nodes.serving(paths)):
        ready, took = seconds_of(paths)
    assert ready and took < 10


def test_a_start_that_becomes_ready_wakes_who_waits(paths: Paths) -> None:
    status_nodes.starting(paths)
    with later(lambda: status_nodes.serving(paths)):
        ready, took = seconds_of(paths)
    assert ready and took < 10


def test_who_waits_in_another_container_sees_the_one_that_comes(paths: Paths) -> None:
    container = Paths(paths.root.parent / "container")
    make_tree(container.root, {"run/nvidia": None})
    make_tree(paths.root, {"run": None, "proc/locks": ""})
    (paths.root / "run/nvidia").symlink_to(container.run)

    def serve() -> None:
        make_tree(paths.root, {f"proc/{status_nodes.PID}/root": f"-> {container.root}"})
        status_nodes.hold(container)
        (paths.proc / "locks").write_text((container.proc / "locks").read_text())
        status_nodes.serving(container)

    with later(serve):
        ready, took = seconds_of(paths)
    assert ready and took < 10


def test_who_waits_is_not_woken_while_nothing_happens(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    real = statuswait.is_ready

    def look(node: Paths) -> bool:
        looks.append(time.monotonic())
        return real(node)

    monkeypatch.setattr(statuswait, "is_ready", look)
    assert not statuswait.wait(status_nodes.starting(paths).root, 1.0)
    assert len(looks) == 2, "at the beginning and at the end"


def test_a_marker_that_changes_is_a_reason_to_look(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    status_nodes.not_ready(paths)
    mended = threading.Event()
    monkeypatch.setattr(statuswait, "is_ready", lambda node: mended.is_set())

    def mend() -> None:
        mended.set()
        markers.write_daemons_status(paths.run, ready=True)

    with later(mend):
        ready, took = seconds_of(paths)
    assert ready and took < 10


@pytest.mark.allow_process("sleep")
def test_the_end_of_the_process_is_a_reason_to_look(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "300"]) as holder:
        status_nodes.starting(paths)
        status_nodes.hold(paths, holder.pid)
        looks: list[int] = []

        def look(node: Paths) -> bool:
            looks.append(1)
            if len(looks) == 2:
                status_nodes.let_go(paths)
            return len(looks) > 1

        monkeypatch.setattr(statuswait, "is_ready", look)
        with later(holder.kill):
            ready, took = seconds_of(paths)
    assert ready and took < 10


def test_a_process_that_cannot_be_watched_is_no_reason_to_fail(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise ProcessLookupError(pid)

    monkeypatch.setattr(pidfd, "opened", refuse)
    assert not statuswait.wait(status_nodes.starting(paths).root, 0.1)


def test_a_folder_is_watched_once_it_is_there(tmp_path: Path) -> None:
    watcher = Watcher()
    try:
        assert not watcher.watch(tmp_path / "none")
        (tmp_path / "file").touch()
        assert not watcher.watch(tmp_path / "file") and watcher.watch(tmp_path) and watcher.watch(tmp_path)
        watcher.drain()
    finally:
        watcher.close()
    with pytest.raises(OSError, match="inotify_add_watch"):
        watcher.watch(tmp_path)
