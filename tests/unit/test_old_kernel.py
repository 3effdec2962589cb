"""Kernels as old as RHEL 8's 4.18, without pidfds and the newer mount calls: all works, and what is worse is said."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest

from driverctr import node, pidfd
from driverctr.paths import Paths
from driverctr.run import wait_for_end
from tests.unit.fake_mounts import FakeKernel
from tests.unit.test_groups import (
    test_a_daemon_that_ignores_sigterm_is_killed_after_the_limit as test_a_deaf_daemon,
)
from tests.unit.test_groups import test_a_group_that_ignores_sigterm_is_killed as test_a_deaf_group
from tests.unit.test_groups import test_a_limit_ends_those_whom_an_ended_leader_left_behind as test_those_left_behind
from tests.unit.test_groups import test_stopping_spares_who_has_the_pid_now_and_clears_the_leftovers as test_sparing
from tests.unit.test_processes import (
    real_proc,
    signals,
)
from tests.unit.test_processes import (
    test_a_daemon_is_started_found_watched_restarted_and_stopped as test_a_daemon,
)
from tests.unit.test_processes import test_a_time_limit_ends_the_whole_group as test_a_limit

PYTHON = Path(sys.executable).name
SOURCE = Path(pidfd.__file__).parents[1]

__all__ = [
    "real_proc",
    "signals",
    "test_a_daemon",
    "test_a_deaf_daemon",
    "test_a_deaf_group",
    "test_a_limit",
    "test_sparing",
    "test_those_left_behind",
]


def refuse(*words: object) -> NoReturn:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture(autouse=True, params=["kernel", "python"])
def old(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here runs where the kernel says ENOSYS, and where Python was built without the calls."""
    for module, name in ((os, "pidfd_open"), (signal, "pidfd_send_signal")):
        if request.param == "kernel":
            monkeypatch.setattr(module, name, refuse)
        else:
            monkeypatch.delattr(module, name)


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "60"])


def threads() -> int:
    return sum(thread.name.startswith("end of ") for thread in threading.enumerate())


@pytest.mark.allow_process("sleep")
def test_an_end_is_seen_soon_and_a_signal_reaches_who_is_meant() -> None:
    assert pidfd.lacking()
    with sleeper() as child:
        descriptor = pidfd.opened(child.pid)
        assert not wait_for_end(child.pid, 0.3)
        pidfd.send(descriptor, child.pid, signal.SIGTERM)
        assert wait_for_end(child.pid, 5)
        os.read(descriptor, 1)  # returns at the end only
        with pytest.raises(ProcessLookupError):
            pidfd.send(descriptor, child.pid, signal.SIGTERM)
        os.close(descriptor)
        assert child.wait() == -signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            pidfd.opened(child.pid)


@pytest.mark.allow_process("sleep")
def test_who_waits_no_longer_leaves_nobody_looking() -> None:
    with sleeper() as child:
        for descriptor in [pidfd.opened(child.pid) for _ in range(5)]:
            os.close(descriptor)
        deadline = time.monotonic() + 5
        while threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threads() == 0 and child.poll() is None
        child.kill()


def test_what_is_worse_is_told_of_the_kernel_and_not_of_another_refusal(paths: Paths) -> None:
    kernel = FakeKernel(paths.root)
    for number, gap in ((errno.ENOSYS, True), (errno.EPERM, False)):
        kernel.refuse["open_tree"] = number
        told = node.missing_calls(kernel)
        assert [words.split()[0] for words in told] == (["open_tree"] if gap else []) + ["pidfd_open"]


@pytest.mark.allow_process(PYTHON)
def test_a_kernel_that_really_answers_enosys_is_lived_with() -> None:
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (SOURCE, SOURCE.parent)))}
    command = [sys.executable, "-B", "-m", "tests.unit.old_kernel"]
    told = subprocess.run(command, env=environment, cwd=SOURCE.parent, capture_output=True, text=True, check=True)
    expected = ["lacks open_tree pidfd_open", "lives False", "ended True True", f"status {-signal.SIGTERM}"]
    assert told.stdout.splitlines() == expected


def test_another_refusal_is_no_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", full, raising=False)
    assert not pidfd.lacking()
    with pytest.raises(OSError, match="Too many open files"):
        pidfd.opened(os.getpid())
