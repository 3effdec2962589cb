"""What one attempt leaves is what a new process would find: the kubelet's restart would do no better."""

import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from driverctr import bringup, markers, persist, status, survey
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts.modules import LoadedModule
from driverctr.modules import Source
from driverctr.modules.loaded import Build, Loaded
from driverctr.paths import Paths
from driverctr.plan import StepName
from driverctr.steps import Gained
from tests.unit.good_node import ON_DISK, facts
from tests.unit.test_persist import POD, Watched
from tests.unit.test_persist import watch as watch

THERE = facts(
    stack={"nvidia": LoadedModule("nvidia", "535.309.01", "", "", "live", 0, ())},
    supply=replace(facts().supply, kept={Source.LOADED: Loaded(Build(ON_DISK), {})}),
)
OTHER = facts(stack={"nvidia": LoadedModule("nvidia", "470.1", "", "", "live", 0, ())})
LOCKED = DriverError(Code.MOUNT_FAILED, "/run/nvidia was locked for 10 s")
STAYS = {"firmware", "driver-root", "load", "device-nodes"}


def undone(watched: Watched) -> set[str]:
    """The steps that were undone so far."""
    return {line.removeprefix("undo ") for line in watched.life.told if line.startswith("undo ")}


def test_what_somebody_opened_since_the_load_stays_for_the_next_attempt(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(POD)
    watched.life.steps[StepName.VERIFY].failures[""] = DriverError(Code.GPU_INIT_FAILED, "no GPU")
    seen: list[set[str]] = []

    def busy(tools: Any) -> None:
        seen.append(undone(watched))
        raise DriverError(Code.IN_USE, "nvidia has refcnt 2: pid 42 (train.py)")

    def cure() -> None:
        seen.append(undone(watched))
        watched.life.steps[StepName.VERIFY].failures.clear()

    monkeypatch.setattr(bringup, "check_free", busy)
    watched.cures[1] = cure
    with pytest.raises(Stopped) as stopped:
        watched.life.start.run()
    assert stopped.value.was_ready and len(watched.pauses) == 1
    assert seen[0] == set(), "use is tested before anything is stopped"
    assert "daemons" in seen[1] and not seen[1] & STAYS
    assert "the driver is in use: it stays for the next attempt (firmware, driver-root, load" in watched.life.log


@pytest.mark.parametrize(("environment", "again"), [(POD, True), ({"RETRY": "always"}, True), ({}, False)])
@pytest.mark.parametrize("step", [StepName.DRIVER_ROOT, StepName.PUBLISH])
def test_in_a_pod_a_driver_that_was_loaded_before_stays_for_the_next_attempt(
    watch: Any, monkeypatch: pytest.MonkeyPatch, step: StepName, environment: Mapping[str, str], again: bool
) -> None:
    watched = watch(environment)
    monkeypatch.setattr(survey, "survey", lambda *_: THERE)
    watched.life.steps[step].once = LOCKED
    seen: list[set[str]] = []
    watched.cures[1] = lambda: seen.append(undone(watched))
    with pytest.raises(Stopped if again else DriverError):
        watched.life.start.run()
    assert len(watched.pauses) == (1 if again else 0)
    if again:
        assert not seen[0] & STAYS and ("daemons" in seen[0]) is (step is StepName.PUBLISH)
        assert "the driver was loaded before this start: it stays for the next attempt (firmware" in watched.life.log
        assert watched.life.told.count("modules:loaded") == 2
        assert watched.life.start.way_up.gained.kept is not None


def test_another_attempt_ends_like_a_new_process_beside_what_the_last_one_left(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(POD)
    monkeypatch.setattr(survey, "survey", lambda *_: THERE)
    watched.life.steps[StepName.PUBLISH].once = LOCKED
    failures = watched.life.steps[StepName.WITHDRAW].failures
    watched.cures[1] = lambda: failures.update({"keep-digest": DriverError(Code.NODE_FILE, "read-only")})
    with pytest.raises(DriverError, match="read-only"):
        watched.life.start.run()
    assert not undone(watched) & STAYS


def test_a_stop_before_the_next_attempt_tells_what_stays(
    watch: Any, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(POD)
    markers.write_digest(paths.run, "1234")
    monkeypatch.setattr(survey, "survey", lambda *_: THERE)
    watched.life.steps[StepName.PUBLISH].once = LOCKED

    def stop() -> None:
        raise Stopped(signal.SIGTERM)

    watched.cures[1] = stop
    with pytest.raises(Stopped) as stopped:
        watched.life.start.run()
    assert not stopped.value.was_ready and not undone(watched) & STAYS
    document = status.read(paths)
    assert document is not None and (document["phase"], set(document["kept"])) == ("stopped", STAYS)
    assert (paths.run / markers.DIGEST).read_text() == "1234\n", "the driver that it speaks of stays"


def test_who_uses_a_driver_keeps_its_files_though_a_module_short_does_not_load(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch({"RETRY": "never"})
    monkeypatch.setattr(survey, "survey", lambda *_: THERE)
    watched.life.steps[StepName.LOAD].failures[""] = DriverError(Code.LOAD_FAILED, "modprobe nvidia-uvm failed")

    def busy(tools: Any) -> None:
        raise DriverError(Code.IN_USE, "nvidia has refcnt 2: pid 42 (train.py)")

    monkeypatch.setattr(bringup, "check_free", busy)
    with pytest.raises(DriverError, match="nvidia-uvm failed; rollback impossible: nvidia has refcnt 2"):
        watched.life.start.run()
    assert not undone(watched) & STAYS


def test_in_a_pod_a_start_that_unloaded_a_driver_is_tried_again(watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch({**POD, "RETRY_ATTEMPTS": "3"})
    monkeypatch.setattr(survey, "survey", lambda *_: facts() if "unload" in watched.life.told else OTHER)
    watched.life.steps[StepName.FIRMWARE].failures[""] = LOCKED
    with pytest.raises(DriverError, match="was locked"):
        watched.life.start.run()
    assert len(watched.pauses) == 2 and watched.life.told.count("unload") == 3
    assert "nvidia served before this start, was unloaded for it" in watched.life.log, "the last attempt found none"


def test_another_versions_userspace_covers_ours_for_no_other_attempt(watch: Any) -> None:
    life = watch(POD).life
    life.start.way_up.gained = Gained(kept=THERE.supply.kept[Source.LOADED])
    for name in (StepName.USERSPACE, StepName.DRIVER_ROOT, StepName.LOAD):
        life.start.way_up.note(life.steps[name], {"by": name.value})
    persist.step_back(life.start.tools, life.start.way_up)
    assert life.told == ["undo userspace"]


def test_markers_written_in_part_say_nothing_between_two_attempts(
    watch: Any, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(POD)
    seen: list[str] = []

    def publish(*_: object) -> Any:
        markers.write_daemons_status(paths.run, ready=True)
        raise DriverError(Code.NO_SPACE, "no room for the other")

    with monkeypatch.context() as only:

        def cure() -> None:
            seen.append((paths.run / markers.DAEMONS).read_text())
            only.undo()

        only.setattr(watched.life.steps[StepName.PUBLISH], "apply", publish)
        watched.cures[1] = cure
        with pytest.raises(Stopped):
            watched.life.start.run()
    assert seen == ["NotReady\n"]
