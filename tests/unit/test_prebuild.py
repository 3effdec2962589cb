"""While the driver serves: one program at a time for kernels that come next, told, retried, and gone at a stop."""

import contextlib
import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driverctr import config as settings
from driverctr import prebuild
from driverctr.errors import DriverError, Stopped
from driverctr.facts import processes
from driverctr.modules import pins
from driverctr.paths import Paths
from driverctr.prebuild import FIRST_PAUSE, Prebuild
from driverctr.run import Background, Runner
from driverctr.signals import Signals
from driverctr.supervise import Supervisor
from driverctr.syslog import Syslog
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.stored import other
from tests.unit.test_installed_kernels import NEXT, RUNNING, headers_files, host
from tests.unit.test_processes import gone, signals, starter

__all__ = ["signals"]

NEWEST = "6.12.1+deb13-amd64"
LINE = '{"time": "x", "level": "%s", "message": "%s", "code": "headers-missing"}'


class Ahead:
    """A look-out on a host, with a fake `nvidia-driver`."""

    def __init__(self, paths: Paths, runner: Runner, fake_bin: FakeBin, signals: Signals) -> None:
        self.paths, self.fake_bin = paths, fake_bin
        self.told: dict[str, Any] = {}
        environment = settings.load({"MODULES_DIR": "/a b", "LOG_FORMAT": "text"}, {"MAX_THREADS": "2"}).given
        self.prebuild = Prebuild(paths, runner, signals, self.tell, environment, paths.root / "store")
        self.log_stream = runner.log.stream

    def tell(self, *, next_kernels: dict[str, Any]) -> None:
        self.told = json.loads(json.dumps(next_kernels))

    def update(self, script: str) -> None:
        self.fake_bin.add("nvidia-driver", script)

    def wait(self) -> None:
        """Until the program has ended."""
        deadline = time.monotonic() + 20
        while self.prebuild.child is not None:
            assert time.monotonic() < deadline
            select.select([self.prebuild], [], [], 1)
            self.prebuild.read()

    def look(self) -> None:
        self.prebuild.look()
        self.wait()

    @property
    def log(self) -> str:
        return str(self.log_stream.getvalue())  # type: ignore[attr-defined]  # a StringIO

    @property
    def built(self) -> list[str]:
        """The kernels for which it was started, in order."""
        return [line.removeprefix("nvidia-driver update --kernel ") for line in self.fake_bin.calls]


@pytest.fixture
def ahead(paths: Paths, runner: Runner, fake_bin: FakeBin, signals: Signals) -> Iterator[Ahead]:
    made = Ahead(paths, runner, fake_bin, signals)
    yield made
    with contextlib.suppress(ValueError, Stopped):
        made.prebuild.stop()


def test_each_kernel_that_comes_next_is_built_for_once_the_newest_first(ahead: Ahead) -> None:
    host(ahead.paths.root, RUNNING, NEXT, NEWEST, "6.1.0-9-amd64")
    ahead.update("")
    for _ in range(4):
        ahead.look()
    assert ahead.built == [NEWEST, NEXT]
    assert ahead.told == {}


def test_the_program_wants_what_this_start_wants_and_speaks_json(ahead: Ahead) -> None:
    host(ahead.paths.root, NEXT)
    ahead.update(f"/usr/bin/env > {ahead.paths.root}/environment")
    ahead.look()
    given = (ahead.paths.root / "environment").read_text().splitlines()
    assert {"MODULES_DIR=/a b", "MAX_THREADS=2", "LOG_FORMAT=json"} <= set(given)


def test_only_one_runs_at_a_time_and_the_status_says_so(ahead: Ahead) -> None:
    host(ahead.paths.root, NEXT, NEWEST)
    ahead.update("/bin/sleep 60")
    for _ in range(3):
        ahead.prebuild.look()
    time.sleep(0.2)
    assert ahead.built == [NEWEST] and ahead.told == {NEWEST: {"state": "building"}}
    assert ahead.prebuild.children() == {ahead.prebuild.child.pid} if ahead.prebuild.child else False


def test_what_the_program_says_is_in_our_log_with_level_and_code(ahead: Ahead) -> None:
    host(ahead.paths.root, NEXT)
    lines = [LINE % ("info", "build: 3 of 9"), LINE % ("error", "no headers"), "Traceback, perhaps", '"text"', "{}"]
    ahead.update("".join(f"echo '{line}'\n" for line in lines) + "printf 'half a line'; echo err >&2; exit 11")
    ahead.look()
    for words in (
        f"INFO    for kernel {NEXT}: build: 3 of 9",
        f"ERROR   for kernel {NEXT}: no headers code=headers-missing",
        f"INFO    for kernel {NEXT}: Traceback, perhaps",
        f"for kernel {NEXT}: half a lineerr",
    ):
        assert words in ahead.log


def test_a_failure_is_remembered_with_its_reason_and_retried_after_growing_pauses(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(ahead.paths.root, NEXT)
    ahead.update(f"echo '{LINE % ('error', 'no headers for it')}'; exit 11")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pauses = []
    for number in range(1, 8):
        ahead.look()
        assert len(ahead.built) == number
        now += 0.5
        pauses.append(round(ahead.told[NEXT]["next_try"] - time.time()))
        now += pauses[-1] - 10
        ahead.look()
        assert len(ahead.built) == number, "too early"
        now += 20
    assert ahead.told[NEXT]["reason"] == "no headers for it" and ahead.told[NEXT]["state"] == "failed"
    assert [round(pause / 3600) for pause in pauses] == [1, 2, 4, 8, 16, 24, 24]
    assert "the next try is in 1 h, or when its headers change: no headers for it" in ahead.log


def test_new_headers_are_tried_at_once_and_a_success_ends_the_tale(ahead: Ahead) -> None:
    root = host(ahead.paths.root, NEXT)
    ahead.update("exit 11")
    ahead.look()
    ahead.look()
    assert ahead.told[NEXT]["reason"] == "it ended with status 11, without a word about why"
    assert ahead.prebuild.tries[NEXT].pause == 2 * FIRST_PAUSE
    ahead.update("")
    make_tree(root, headers_files(NEXT, "#1"))
    ahead.look()
    assert ahead.built == [NEXT, NEXT] and ahead.told == {}
    ahead.look()
    assert len(ahead.built) == 2


def test_a_program_that_is_killed_or_missing_is_a_failure_too(ahead: Ahead) -> None:
    root = host(ahead.paths.root, NEXT)
    ahead.update("kill -9 $$")
    ahead.look()
    assert ahead.told[NEXT]["reason"] == "it was ended by signal 9, without a word about why"
    (ahead.fake_bin.folder / "nvidia-driver").unlink()
    make_tree(root, headers_files(NEXT, "#1"))
    ahead.look()
    assert "`nvidia-driver` was not found" in ahead.told[NEXT]["reason"]


def test_a_kernel_that_was_removed_is_forgotten(ahead: Ahead) -> None:
    root = host(ahead.paths.root, NEXT, NEWEST)
    ahead.update("exit 1")
    ahead.look()
    ahead.look()
    assert set(ahead.told) == {NEXT, NEWEST}
    (root / f"lib/modules/{NEWEST}/modules.builtin").unlink()
    ahead.look()
    assert set(ahead.prebuild.tries) == {NEXT}


def test_modules_of_a_kernel_that_was_removed_are_pinned_no_more_whether_or_not_another_comes(ahead: Ahead) -> None:
    root = host(ahead.paths.root, RUNNING, NEXT)
    ahead.update("")
    store = ahead.paths.root / "store"
    for release in (NEXT, NEWEST):
        pins.pin_next(store, other(kernel_release=release))
    ahead.look()
    assert set(pins.read(store).next) == {NEXT}, "that one went while we did not look"
    (root / f"lib/modules/{NEXT}/modules.builtin").unlink()
    (store / "pins.json").chmod(0o666)
    ahead.look()
    (store / "pins.json").chmod(0o644)
    assert set(pins.read(store).next) == {NEXT}
    ahead.look()
    assert pins.read(store).next == {} and f"kernel {NEXT} is on the host no more: its modules may go" in ahead.log


def test_where_the_hosts_kernels_are_not_seen_pins_stay(ahead: Ahead) -> None:
    host(ahead.paths.root)
    pins.pin_next(ahead.paths.root / "store", other(kernel_release=NEXT))
    ahead.look()
    assert set(pins.read(ahead.paths.root / "store").next) == {NEXT}


def test_where_nothing_is_wanted_nothing_is_looked_at(ahead: Ahead) -> None:
    host(ahead.paths.root, NEXT)
    ahead.prebuild.store = None
    ahead.look()
    assert not ahead.prebuild.read() and ahead.prebuild.children() == set() and ahead.built == []


def test_a_host_that_cannot_be_read_is_said_once(ahead: Ahead) -> None:
    host(ahead.paths.root, NEXT, running="?")
    ahead.look()
    ahead.look()
    assert ahead.log.count("the kernels installed on the host cannot be read") == 1


def test_our_look_follows_that_at_the_driver(ahead: Ahead) -> None:
    host(ahead.paths.root, NEXT)
    ahead.update("")
    assert ahead.prebuild.after(lambda: 17.0)() == 17.0
    ahead.wait()
    assert ahead.built == [NEXT]


DEAF = "trap '' TERM\n/usr/bin/setsid /bin/sh -c 'trap \"\" TERM; /bin/sleep 60 & echo $! >%s; wait; wait' &\n"


@pytest.mark.parametrize("deaf", [True, False])
def test_at_a_stop_the_program_and_all_it_started_is_gone_within_a_second(ahead: Ahead, deaf: bool) -> None:
    host(ahead.paths.root, NEXT)
    left = ahead.paths.root / "left"
    ahead.update((DEAF % left if deaf else f"echo $$ >{left}\n") + "/bin/sleep 60; /bin/sleep 60")
    ahead.prebuild.look()
    assert ahead.prebuild.child is not None
    pids = [ahead.prebuild.child.pid, wait_for_number(left)]
    began = time.monotonic()
    ahead.prebuild.stop()
    took = time.monotonic() - began
    assert all(gone(pid) for pid in pids) and took < 1.0
    assert (took >= 0.5) == deaf
    assert "given up" in ahead.log


def wait_for_number(file: Path) -> int:
    deadline = time.monotonic() + 20
    while not (text := file.read_text() if file.exists() else "").endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(text)


def test_haste_leaves_the_program_no_grace(ahead: Ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    host(ahead.paths.root, NEXT)
    ahead.update(DEAF % (ahead.paths.root / "left") + "/bin/sleep 60")
    ahead.prebuild.look()
    wait_for_number(ahead.paths.root / "left")
    monkeypatch.setattr(prebuild, "END_GRACE", 30)
    ahead.prebuild.signals.count = 2
    began = time.monotonic()
    ahead.prebuild.stop()
    assert time.monotonic() - began < 2


def test_the_supervisor_hears_it_spares_it_and_looks_again_at_its_end(
    ahead: Ahead, paths: Paths, runner: Runner, signals: Signals
) -> None:
    host(paths.root, NEXT, NEWEST)
    ahead.update("echo said; exit 7")
    syslog = Syslog(paths.root / "log", paths.root)
    supervisor = Supervisor(
        starter(paths, runner, syslog),
        runner,
        signals,
        syslog,
        lambda live: None,
        ahead.prebuild.after(lambda: 60.0),
        ahead.prebuild.children,
    )

    def stop_after_both() -> None:
        deadline = time.monotonic() + 20
        while [told["state"] for told in ahead.told.values()] != ["failed"] * 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_after_both).start()
    with pytest.raises(Stopped):
        supervisor.wait((), [ahead.prebuild])
    assert ahead.built == [NEWEST, NEXT]
    assert {told["reason"] for told in ahead.told.values()} == {"it ended with status 7, without a word about why"}
    assert f"for kernel {NEWEST}: said" in ahead.log


def test_lines_of_a_program_beside_us_come_whole_or_in_pieces(runner: Runner, fake_bin: FakeBin) -> None:
    fake_bin.add("talk", "printf 'a\\nb'; /bin/sleep 0.3; printf 'c\\n'; printf '%09000d' 1; printf 'caf\\351'")
    child = runner.start(["talk"])
    lines: list[str] = []
    while not child.at_end:
        select.select([child], [], [], 5)
        lines += child.read()
    assert lines[:2] == ["a", "bc"] and "".join(lines[2:]) == "0" * 8999 + "1caf\ufffd"
    assert child.end(5) == 0
    with pytest.raises(DriverError, match="was not found"):
        runner.start(["none"])


def test_only_descendants_are_taken_for_a_programs_own(runner: Runner, fake_bin: FakeBin) -> None:
    fake_bin.add("apart", "exec /bin/sleep 60")
    fake_bin.add("parent", "/usr/bin/setsid /bin/sleep 60 & /bin/sleep 60 & wait")
    stranger, child = runner.start(["apart"]), runner.start(["parent"])
    deadline = time.monotonic() + 20
    while len(found := child.groups()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == 2 and child.pid in found and stranger.pid not in found
    (of_its_own,) = found - {child.pid}
    for one in (child, stranger):
        assert one.end(0) == -signal.SIGKILL
    left = processes.read(Paths(), of_its_own)
    assert left is None or left.state in "ZX"


def test_a_program_that_hangs_in_the_kernel_is_left(
    runner: Runner, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_bin.add("hang", "exec /bin/sleep 60")
    child: Background = runner.start(["hang"])
    monkeypatch.setattr("driverctr.run.KILL_LIMIT", 0.2)
    with monkeypatch.context() as kernel:
        kernel.setattr(os, "killpg", lambda group, number: None)
        assert child.end(0.1) == -signal.SIGKILL
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
