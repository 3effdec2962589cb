"""Failures that may pass are tried again in the process; the history tells how each start came out."""

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from driverctr import markers, monitoring, persist, pidlock, retry, status, stopping, survey
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts.holders import Holder
from driverctr.facts.modules import LoadedModule
from driverctr.history import Outcome, read
from driverctr.lifecycle import Start
from driverctr.paths import Paths
from driverctr.plan import StepName
from driverctr.run import Runner
from driverctr.status import Phase, StepTime
from tests.unit.fake_life import Life, make_life
from tests.unit.good_node import facts

MIRROR = DriverError(Code.PACKAGES_FAILED, "the mirror does not answer", "See the mirror")
NOWHERE = DriverError(Code.NO_MODULES, "nothing on disk")
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
USED = facts(
    stack={"nvidia": LoadedModule("nvidia", "470.1", "", "", "live", 2, ())},
    holders=(Holder(42, "train.py", 0.0, (("nvidia", 2),)),),
)


class Watched:
    """A life whose pauses take no time, and are written down with the status at that moment."""

    def __init__(self, life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        self.life, self.paths = life, paths
        self.pauses: list[float] = []
        self.documents: list[dict[str, Any]] = []
        self.words: list[str] = []
        self.cures: dict[int, Any] = {}
        monkeypatch.setattr(life.start.tools.signals, "pause", self.pause)
        monkeypatch.setattr(stopping, "BUSY_WAIT", 0.0)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        document = status.read(self.paths)
        assert document is not None
        self.documents.append(document)
        if self.paths.termination_log.is_file():
            self.words.append(self.paths.termination_log.read_text())
        if cure := self.cures.get(len(self.pauses)):
            cure()

    def fail_until(self, pause: int, step: StepName, error: DriverError, alternative: str = "") -> None:
        """Have a step fail until so many pauses have passed."""
        failures = self.life.steps[step].failures
        failures[alternative] = error
        self.cures[pause] = failures.clear


@pytest.fixture
def watch(paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Any:
    (paths.root / "var/lib/driverctr").mkdir(parents=True)
    paths.termination_log.parent.mkdir()
    paths.termination_log.touch()

    def make(environment: Mapping[str, str]) -> Watched:
        return Watched(make_life(paths, runner, monkeypatch, environment), paths, monkeypatch)

    return make


def without_modules(watched: Watched, pause: int) -> None:
    """Nothing on disk, and a mirror that comes back after so many pauses."""
    watched.life.steps[StepName.MODULES].failures["build"] = MIRROR
    watched.life.steps[StepName.MODULES].failures["on-disk"] = NOWHERE
    watched.cures[pause] = lambda: watched.life.steps[StepName.MODULES].failures.pop("build")


def test_a_mirror_that_comes_back_is_found_without_a_restart(watch: Any, paths: Paths) -> None:
    watched = watch({})
    without_modules(watched, 2)
    with pytest.raises(Stopped) as stopped:
        watched.life.start.run()
    assert stopped.value.was_ready and len(watched.pauses) == 2
    assert 5 <= watched.pauses[0] <= 10 <= watched.pauses[1] <= 20
    first, second = watched.documents
    assert (first["phase"], first["attempt"], second["attempt"]) == ("retrying", 1, 2)
    assert first["step"] == "modules"
    assert first["failure"]["code"] == "packages-failed" and "mirror does not answer" in first["failure"]["message"]
    assert first["failure"]["remedy"] == "See the mirror" and first["next_try"] > first["failure"]["at"]
    assert "attempt 1 of 5 failed: the mirror does not answer" in watched.life.log and "next try in" in watched.life.log
    assert [json.loads(word)["code"] for word in watched.words] == ["packages-failed"] * 2
    assert paths.termination_log.read_text() == "", "what became ready did not end for that"
    told = watched.life.start.told
    assert not told.failure and told.last_failure["code"] == "packages-failed" and told.last_failure["remedy"]
    (start,) = read(paths.root / "var/lib/driverctr/store")
    assert (start.outcome, start.attempts, start.modules_from, start.code) == (Outcome.READY, 3, "build", "")


def test_attempts_are_bounded_and_the_last_failure_ends_the_start(watch: Any, paths: Paths) -> None:
    watched = watch({"RETRY_ATTEMPTS": "3", "RETRY_MAX_PAUSE": "12"})
    without_modules(watched, 99)
    with pytest.raises(DriverError) as failed:
        watched.life.start.run()
    assert failed.value.code is Code.PACKAGES_FAILED and len(watched.pauses) == 2
    assert all(pause <= 12 for pause in watched.pauses)
    document = status.read(paths)
    assert document is not None and (document["phase"], document["attempt"]) == ("failed", 3)
    (start,) = read(paths.root / "var/lib/driverctr/store")
    assert (start.outcome, start.attempts, start.code, start.step) == (Outcome.FAILED, 3, "packages-failed", "modules")


@pytest.mark.parametrize(
    ("environment", "step", "error", "again"),
    [
        ({"RETRY": "never"}, StepName.MODULES, MIRROR, False),
        ({}, StepName.MODULES, DriverError(Code.BUILD_FAILED, "nv.c:1: no"), False),
        ({}, StepName.VERIFY, DriverError(Code.GPU_INIT_FAILED, "no GPU"), False),
        (POD, StepName.VERIFY, DriverError(Code.GPU_INIT_FAILED, "no GPU"), True),
        ({"RETRY": "always"}, StepName.DAEMONS, DriverError(Code.DAEMON_FAILED, "no"), True),
        ({**POD, "RETRY": "never"}, StepName.VERIFY, DriverError(Code.GPU_INIT_FAILED, "no GPU"), False),
        (POD, StepName.VERIFY, DriverError(Code.KEY_REJECTED, "no"), False),
    ],
)
def test_what_is_tried_again(
    watch: Any, environment: Mapping[str, str], step: StepName, error: DriverError, again: bool
) -> None:
    watched = watch(environment)
    failures = watched.life.steps[step].failures
    failures |= {"on-disk": NOWHERE, "build": error} if step is StepName.MODULES else {"": error}
    watched.cures[1] = lambda: [failures.pop(name) for name in ("build", "") if name in failures]
    with pytest.raises(Stopped if again else DriverError):
        watched.life.start.run()
    assert len(watched.pauses) == (1 if again else 0)


def test_before_the_next_attempt_everything_is_taken_back(watch: Any) -> None:
    watched = watch(POD)
    watched.life.steps[StepName.LOAD].once = DriverError(Code.LOAD_FAILED, "modprobe failed")
    seen: list[list[str]] = []
    watched.cures[1] = lambda: seen.append(list(watched.life.told))
    with pytest.raises(Stopped):
        watched.life.start.run()
    undone = [line for line in seen[0] if line.startswith("undo ")]
    assert undone == [
        f"undo {name}" for name in ("driver-root", "firmware", "unload", "module-tree", "modules", "withdraw")
    ]


@pytest.mark.parametrize("error", [DriverError(Code.UNLOAD_FAILED, "rmmod: in use"), OSError(5, "rmmod: in use")])
def test_where_not_all_can_be_undone_nothing_is_tried_again(watch: Any, error: BaseException) -> None:
    watched = watch(POD)
    watched.life.steps[StepName.VERIFY].failures[""] = DriverError(Code.GPU_INIT_FAILED, "no GPU")
    watched.life.steps[StepName.LOAD].failures["undo"] = error
    with pytest.raises(DriverError) as failed:
        watched.life.start.run()
    assert failed.value.code is Code.GPU_INIT_FAILED and not watched.pauses
    told = watched.life.log.partition("not tried again, since not all could be undone: ")[2]
    assert "rmmod: in use" in told.splitlines()[0]


@pytest.mark.parametrize(("environment", "waits"), [({}, False), (POD, True), ({**POD, "RETRY": "never"}, False)])
def test_in_a_pod_a_driver_in_use_is_waited_for_without_end(
    watch: Any, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], waits: bool
) -> None:
    watched = watch({**environment, "RETRY_ATTEMPTS": "2"})
    monkeypatch.setattr(survey, "survey", lambda *_: facts() if len(watched.pauses) >= 7 else USED)
    with pytest.raises(Stopped if waits else DriverError):
        watched.life.start.run()
    assert len(watched.pauses) == (7 if waits else 0)
    if waits:
        (used,) = watched.documents[6]["in_use"]
        assert (used["module"], used["pids"]) == ("nvidia", [42])
        assert watched.life.start.told.in_use == (), "nobody any more"
        assert watched.documents[6]["attempt"] == 7 and "attempt 7 failed: the driver is in use" in watched.life.log


def test_who_comes_while_modules_are_built_is_waited_for_too(watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch(POD)
    watched.life.steps[StepName.UNLOAD].once = DriverError(Code.IN_USE, "the driver is in use: pid 42")

    def look(*_: object) -> Any:
        return USED if StepName.UNLOAD in watched.life.told and not watched.pauses else facts()

    monkeypatch.setattr(survey, "survey", look)
    with pytest.raises(Stopped) as stopped:
        watched.life.start.run()
    assert stopped.value.was_ready and watched.documents[0]["failure"]["code"] == "in-use"
    undone = [line for line in watched.life.told if line.startswith("undo ")]
    assert undone[:3] == ["undo module-tree", "undo modules", "undo withdraw"]


def test_who_used_the_driver_costs_no_attempt(watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch({**POD, "RETRY_ATTEMPTS": "2"})
    without_modules(watched, 8)
    monkeypatch.setattr(survey, "survey", lambda *_: facts() if len(watched.pauses) >= 7 else USED)
    with pytest.raises(Stopped):
        watched.life.start.run()
    assert [document["failure"]["code"] for document in watched.documents[-2:]] == ["in-use", "packages-failed"]
    assert "attempt 8 of 9 failed: the mirror does not answer" in watched.life.log


def test_a_hang_in_the_kernel_while_an_attempt_is_taken_back_ends_all(watch: Any, paths: Paths) -> None:
    watched = watch(POD)
    watched.life.steps[StepName.VERIFY].failures[""] = DriverError(Code.GPU_INIT_FAILED, "no GPU")
    watched.life.steps[StepName.LOAD].failures["undo"] = DriverError(Code.STUCK, "rmmod hangs")
    with pytest.raises(DriverError) as failed:
        watched.life.start.run()
    assert failed.value.code is Code.STUCK and not watched.pauses
    assert watched.life.told[-1] == "undo load", "what hangs is not undone again, nor is what lies below it"
    document = status.read(paths)
    assert document is not None and document["phase"] == "stuck"


def test_a_reload_has_all_its_attempts(watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch({})
    without_modules(watched, 2)
    attempts: list[int] = []

    def wait(start: Start) -> None:
        attempts.append(start.told.attempt)
        if len(attempts) == 2:
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(Start, "wait", wait)
    with pytest.raises(Stopped):
        watched.life.start.run()
    assert attempts == [3, 1]


def test_a_signal_ends_the_pause_and_the_last_failure_is_the_containers_last_word(watch: Any, paths: Paths) -> None:
    watched = watch({})
    without_modules(watched, 99)

    def stop() -> None:
        raise Stopped(signal.SIGTERM)

    watched.cures[1] = stop
    with pytest.raises(Stopped) as stopped:
        watched.life.start.run()
    assert not stopped.value.was_ready and watched.life.told[-1] == "undo withdraw"
    assert watched.life.start.told.next_try is None, "there is none any more"
    assert json.loads(paths.termination_log.read_text())["code"] == "packages-failed"
    (start,) = read(paths.root / "var/lib/driverctr/store")
    assert start.outcome is Outcome.STOPPED


def test_a_stop_while_the_driver_in_use_is_waited_for_leaves_its_digest(
    watch: Any, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(POD)
    markers.write_digest(paths.run, "1234")
    monkeypatch.setattr(survey, "survey", lambda *_: USED)

    def stop() -> None:
        raise Stopped(signal.SIGTERM)

    watched.cures[1] = stop
    with pytest.raises(Stopped):
        watched.life.start.run()
    assert (paths.run / markers.DIGEST).read_text() == "1234\n", "nothing was touched: what is installed is still so"


def test_a_stop_between_two_attempts_leaves_no_metrics_of_a_failure(watch: Any, paths: Paths) -> None:
    (paths.root / "prom").mkdir()
    prom = paths.root / "prom/driverctr.prom"
    watched = watch({"METRICS_TEXTFILE": str(prom)})
    without_modules(watched, 99)

    def stop() -> None:
        assert 'driverctr_failure{code="packages-failed"} 1.0' in prom.read_text()
        raise Stopped(signal.SIGTERM)

    watched.cures[1] = stop
    with pytest.raises(Stopped), monitoring.watched(watched.life.start.tools) as told:
        watched.life.start.watch = told
        watched.life.start.run()
    assert status.read(paths) is None and not prom.exists()


def test_a_start_that_was_killed_is_told_of_by_the_next(watch: Any, paths: Paths) -> None:
    watched = watch({})
    killed = replace(status.begin(paths), started=1000.0, since=1000.0, step="modules", kernel_release="6.1")
    status.publish(paths, killed)
    Start(watched.life.start.tools)
    (start,) = read(paths.root / "var/lib/driverctr/store")
    assert (start.outcome, start.started, start.step) == (Outcome.CRASHED, 1000.0, "modules")
    assert start.seconds == round(paths.status_file.stat().st_mtime - 1000.0, 3)
    status.publish(paths, replace(killed, since=cast("float", None), steps=cast("tuple[StepTime]", None)))
    Start(watched.life.start.tools)
    status.publish(paths, replace(killed, phase=Phase.READY))
    Start(watched.life.start.tools)
    assert len(read(paths.root / "var/lib/driverctr/store")) == 1, "one that became ready was told of then"


def test_a_start_killed_before_it_told_anything_leaves_that_before_it_on_record_once(watch: Any, paths: Paths) -> None:
    watched = watch({})
    status.publish(paths, replace(status.begin(paths), started=1000.00049, since=1000.0, step="modules"))
    Start(watched.life.start.tools)
    Start(watched.life.start.tools)
    (start,) = read(paths.root / "var/lib/driverctr/store")
    assert (start.outcome, start.step) == (Outcome.CRASHED, "modules")


def test_a_start_killed_while_it_undoes_what_failed_is_on_record_as_failed_alone(watch: Any, paths: Paths) -> None:
    watched = watch({})
    start = watched.life.start
    start.tell(step="load")
    start.chronicle.note(start.told, Outcome.FAILED, MIRROR)
    Start(start.tools)
    (told,) = read(paths.root / "var/lib/driverctr/store")
    assert (told.outcome, told.code) == (Outcome.FAILED, "packages-failed")


@pytest.mark.parametrize(
    ("environment", "pauses"), [(POD, 2), ({"RETRY": "always"}, 2), ({}, 0), ({**POD, "RETRY_ATTEMPTS": "2"}, 1)]
)
def test_in_a_pod_a_lock_that_another_is_about_to_give_up_is_waited_for(
    watch: Any, paths: Paths, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], pauses: int
) -> None:
    watched = watch(environment)
    taken: list[float] = []
    monkeypatch.setattr(watched.life.start.tools.signals, "pause", taken.append)

    @contextlib.contextmanager
    def held(path: Path) -> Iterator[None]:
        if len(taken) < 2:
            raise DriverError(Code.ALREADY_RUNNING, "another driver container holds the lock")
        yield

    monkeypatch.setattr(pidlock, "held", held)
    refused = nullcontext() if pauses == 2 else pytest.raises(DriverError, match="holds the lock")
    with refused, persist.locked(watched.life.start.tools):
        assert json.loads(paths.termination_log.read_text())["code"] == "already-running"
    assert len(taken) == pauses and ("attempt 1 of" in watched.life.log) is bool(pauses)


def test_what_went_wrong_before_is_told_by_the_next_start_until_something_else_does(watch: Any, paths: Paths) -> None:
    watched = watch({})
    failed = replace(status.begin(paths), phase=Phase.FAILED, failure=status.failed_now(MIRROR))
    status.publish(paths, failed)
    second = Start(watched.life.start.tools)
    assert second.told.last_failure["message"] == MIRROR.message and not second.told.failure
    status.publish(paths, second.told)
    assert Start(watched.life.start.tools).told.last_failure == second.told.last_failure


def test_a_history_that_cannot_be_written_is_said_and_ends_nothing(watch: Any, paths: Paths) -> None:
    watched = watch({})
    (paths.root / "var/lib/driverctr/store").write_text("no folder")
    with pytest.raises(Stopped) as stopped:
        watched.life.start.run()
    assert stopped.value.was_ready and "history.jsonl is not written" in watched.life.log


def test_pauses_grow_to_their_most_and_are_not_the_same_for_two() -> None:
    pauses = [retry.pause_before(attempt, persist.FIRST_PAUSE, 300) for attempt in range(2, 12)]
    assert 5 <= pauses[0] <= 10 and 150 <= pauses[-1] <= 300
    assert len({retry.pause_before(2, 10, 300) for _ in range(20)}) > 10
    assert retry.pause_before(10**6, 10, 300) <= 300
