"""Plan, act, undo: decided purely, replanned by what is observed, taken back in reverse."""

import json
import signal
from dataclasses import replace

import pytest

from driverctr import bringup, markers, status, stopping, survey
from driverctr import config as settings
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts.holders import Holder
from driverctr.facts.modules import LoadedModule
from driverctr.facts.privilege import Privilege
from driverctr.lifecycle import Start
from driverctr.modules.supply import Supply
from driverctr.paths import Paths
from driverctr.plan import StepName, make
from driverctr.status import Phase
from driverctr.steps import Tools
from driverctr.survey import Observation
from tests.unit.fake_life import ALWAYS, FORWARD, Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import facts, node

CONFIG = settings.load({})
NOWHERE = Observation("modules", "on-disk", DriverError(Code.NO_MODULES, "nothing on disk"))
BROKEN = Observation("modules", "build", DriverError(Code.BUILD_FAILED, "nv.c:1: no", "Fix it"))


def core(refcnt: int) -> LoadedModule:
    return LoadedModule("nvidia", "470.1", "", "", "live", refcnt, ())


def test_the_plan_is_every_step_in_the_order_of_the_design() -> None:
    assert [step.name for step in make(CONFIG, facts()).steps] == list(ALWAYS)


@pytest.mark.parametrize(
    ("seen", "build_allowed", "chosen", "blocked"),
    [
        ((), True, "on-disk", None),
        ((NOWHERE,), True, "build", None),
        ((NOWHERE, BROKEN), True, "", Code.BUILD_FAILED),
        ((NOWHERE,), False, "", Code.NO_MODULES),
    ],
)
def test_modules_come_from_the_first_source_not_refused(
    seen: tuple[Observation, ...], build_allowed: bool, chosen: str, blocked: Code | None
) -> None:
    made = make(CONFIG, facts(observations=seen), build_allowed=build_allowed)
    step = next(step for step in made.steps if step.name is StepName.MODULES)
    assert step.alternative == chosen
    assert [blocker.code for blocker in made.blockers] == ([blocked] if blocked else [])
    reasons = {other.alternative: other.reason for other in step.set_aside}
    assert all(reasons[observation.alternative] == observation.error.message for observation in seen)
    json.dumps(made.as_dict())


def test_where_no_way_is_left_the_refusal_that_tells_most_comes_first_and_the_other_places_after() -> None:
    seen = (
        Observation("modules", "loaded", DriverError(Code.NO_MODULES, "no module of the driver is loaded")),
        Observation("modules", "on-disk", DriverError(Code.WRONG_KERNEL, "nvidia was built for 6.0", "Build it")),
        Observation("modules", "build", DriverError(Code.NO_MODULES, "the image has no source")),
    )
    (blocker,) = make(CONFIG, facts(observations=seen)).blockers
    assert (blocker.code, blocker.remedy) == (Code.WRONG_KERNEL, "Build it")
    aside = "store: nothing that fits is in the store"
    remote = "remote: REMOTE_URL is not set"
    assert blocker.message == f"nvidia was built for 6.0 ({aside}; {remote}; build: the image has no source)"
    (blocker,) = make(CONFIG, facts(observations=seen[:2]), build_allowed=False).blockers
    nothing = "build: `load` builds nothing; `init` and `build` do"
    assert blocker.message == f"nvidia was built for 6.0 ({aside}; {remote}; {nothing})"
    (blocker,) = make(CONFIG, facts(observations=(seen[0], NOWHERE, seen[2]))).blockers
    assert (blocker.code, blocker.message) == (
        Code.NO_MODULES,
        f"the image has no source ({aside}; on-disk: nothing on disk; {remote})",
    )


def test_a_driver_in_use_blocks_with_module_refcnt_and_process() -> None:
    holder = Holder(42, "train.py", 0.0, (("nvidia", 2),))
    blockers = make(CONFIG, facts(stack={"nvidia": core(2)}, holders=(holder,))).blockers
    assert [blocker.code for blocker in blockers] == [Code.IN_USE]
    assert "nvidia has refcnt 2: pid 42 (train.py)" in blockers[0].message


def test_a_good_life_ends_with_everything_undone_in_reverse(life: Life, paths: Paths) -> None:
    with pytest.raises(Stopped) as stopped:
        life.start.run()
    assert stopped.value.was_ready
    assert life.told == [*FORWARD, *(f"undo {name.value}" for name in reversed(ALWAYS))]
    assert not paths.status_file.exists()


def test_a_signal_that_an_import_made_another_error_of_is_a_stop(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(start: Start) -> None:
        try:
            raise Stopped(signal.SIGTERM)
        except Stopped as stopped:
            raise RuntimeError("Error calling __set_name__") from stopped

    monkeypatch.setattr(Start, "wait", wait)
    with pytest.raises(Stopped) as stopped:
        life.start.run()
    assert stopped.value.was_ready and life.told[-1] == "undo withdraw"


def test_a_refused_alternative_is_an_observation_and_the_plan_is_made_again(life: Life) -> None:
    life.steps[StepName.MODULES].failures["on-disk"] = NOWHERE.error
    with pytest.raises(Stopped):
        life.start.run()
    assert life.told[:3] == ["withdraw", "modules:on-disk", "modules:build"]
    assert life.start.told.modules_from == "build"


def test_the_last_refusal_ends_the_start_with_its_own_code_before_anything_is_unloaded(
    life: Life, paths: Paths
) -> None:
    life.steps[StepName.MODULES].failures |= {"on-disk": NOWHERE.error, "build": BROKEN.error}
    with pytest.raises(DriverError, match=r"nv\.c:1") as failed:
        life.start.run()
    assert failed.value.code is Code.BUILD_FAILED
    assert life.told == ["withdraw", "modules:on-disk", "modules:build", "undo withdraw"]
    document = status.read(paths)
    assert document is not None and document["phase"] == "failed" and document["failure"]["code"] == "build-failed"


def test_a_step_that_fails_takes_back_what_was_done_before_it(life: Life) -> None:
    life.steps[StepName.VERIFY].failures[""] = DriverError(Code.GPU_INIT_FAILED, "no GPU")
    with pytest.raises(DriverError):
        life.start.run()
    assert life.told[-9:] == [
        *(f"undo {name}" for name in ("daemons", "device-nodes", "load", "driver-root", "firmware", "unload")),
        "undo module-tree",
        "undo modules",
        "undo withdraw",
    ]
    assert (life.start.told.phase, life.start.told.step) == (Phase.FAILED, "verify")


def test_a_start_refused_before_its_first_step_touches_nothing_but_markers_that_lie(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    markers.write_ready(paths.run, gds=False, gdrcopy=False, rdma=False)
    markers.write_digest(paths.run, "1234")
    holder = Holder(42, "train.py", 0.0, (("nvidia", 2),))
    monkeypatch.setattr(survey, "survey", lambda *_: facts(stack={"nvidia": core(2)}, holders=(holder,)))
    monkeypatch.setattr(stopping, "BUSY_WAIT", 0.1)
    with pytest.raises(DriverError) as refused:
        life.start.run()
    assert refused.value.code is Code.IN_USE and life.told == []
    assert not (paths.run / markers.CONTAINER).exists()
    assert (paths.run / markers.DIGEST).read_text() == "1234\n"


def test_a_start_waits_for_a_probe_that_is_soon_gone(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = facts(stack={"nvidia": core(2)}, holders=(Holder(42, "nvidia-smi", 0.0, (("nvidia", 2),)),))
    looks = [probe, probe, facts(stack={"nvidia": core(0)})]
    monkeypatch.setattr(survey, "survey", lambda *_: looks.pop(0))
    monkeypatch.setattr(stopping, "BUSY_PAUSE", 0.01)
    life.start.way_up.run()
    assert life.told == FORWARD and not looks and life.start.way_up.looks == 1


def test_a_start_that_is_refused_for_another_reason_waits_for_nobody(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = facts(stack={"nvidia": core(2)}, holders=(Holder(42, "x", 0.0, (("nvidia", 2),)),))
    looks = [replace(used, supply=Supply(), observations=(NOWHERE,))]
    monkeypatch.setattr(survey, "survey", lambda *_: looks.pop(0))
    life.start.way_up.build_allowed = False
    with pytest.raises(DriverError):
        life.start.way_up.run()
    assert not looks, "one look, and no second"


def test_a_use_that_began_after_the_look_is_waited_for_too(life: Life) -> None:
    life.steps[StepName.UNLOAD].once = DriverError(Code.IN_USE, "nvidia has refcnt 2: pid 42 (nvidia-smi)")
    life.start.way_up.run()
    assert life.told == [*FORWARD[:4], *FORWARD[1:]] and life.start.way_up.looks == 2


def test_who_always_uses_the_driver_when_it_is_to_go_ends_the_start(life: Life) -> None:
    life.steps[StepName.UNLOAD].failures[""] = DriverError(Code.IN_USE, "nvidia has refcnt 2: pid 42 (nvidia-smi)")
    with pytest.raises(DriverError) as refused:
        life.start.run()
    assert refused.value.code is Code.IN_USE and life.told.count("unload") == bringup.MOST_LOOKS


def test_a_reload_refused_before_its_first_step_takes_back_what_was_done_before_it(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [facts(), node(privilege=Privilege(("SYS_MODULE",), False))]
    monkeypatch.setattr(survey, "survey", lambda *_: looks.pop(0))
    monkeypatch.setattr(Start, "wait", lambda self: None)
    with pytest.raises(DriverError) as refused:
        life.start.run()
    assert refused.value.code is Code.NO_PRIVILEGE and "nothing was touched" not in life.log
    assert life.told == [*FORWARD, *(f"undo {name.value}" for name in reversed(ALWAYS))]


def test_in_use_at_the_stop_keeps_what_running_processes_need(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(tools: Tools) -> None:
        raise DriverError(Code.IN_USE, "nvidia has refcnt 3")

    monkeypatch.setattr(stopping, "check_free", busy)
    monkeypatch.setattr(stopping, "BUSY_WAIT", 0.5)
    with pytest.raises(DriverError) as refused:
        life.start.run()
    assert refused.value.code is Code.IN_USE
    undone = [line for line in life.told if line.startswith("undo ")]
    assert undone[0] == "undo publish"
    assert not {"undo load", "undo device-nodes", "undo driver-root", "undo firmware"} & set(undone)


def test_modules_that_do_not_go_keep_root_and_firmware(life: Life) -> None:
    life.steps[StepName.LOAD].failures["undo"] = DriverError(Code.UNLOAD_FAILED, "rmmod: in use")
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert failed.value.code is Code.UNLOAD_FAILED
    assert "undo load" in life.told and "undo driver-root" not in life.told


def test_a_signal_while_modules_are_had_undoes_and_is_not_a_good_life(life: Life) -> None:
    life.steps[StepName.MODULES].failures["on-disk"] = Stopped(signal.SIGINT)
    with pytest.raises(Stopped) as stopped:
        life.start.run()
    assert not stopped.value.was_ready
    assert life.told == ["withdraw", "modules:on-disk", "undo withdraw"]


def test_a_signal_right_after_publishing_ends_a_good_life(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped_at_once(self: Start, **changes: object) -> None:
        if changes.get("phase") is status.Phase.READY:
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(Start, "tell", stopped_at_once)
    with pytest.raises(Stopped) as stopped:
        life.start.run()
    assert stopped.value.was_ready


def test_what_must_be_so_is_told_with_ready_and_not_before(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bool]] = []
    publish = status.publish

    def see(paths: Paths, document: status.Status) -> None:
        told.append((document.phase.value, bool(document.expected)))
        publish(paths, document)

    monkeypatch.setattr(status, "publish", see)
    reloads = [True]

    def wait(start: Start) -> None:
        if not reloads:
            raise Stopped(signal.SIGTERM)
        reloads.clear()

    monkeypatch.setattr(Start, "wait", wait)
    with pytest.raises(Stopped):
        life.start.run()
    assert {has for phase, has in told if phase == "ready"} == {True}
    assert {has for phase, has in told if phase == "starting"} == {False}


def test_termination_message_is_one_line_of_json_within_the_limit(paths: Paths) -> None:
    paths.termination_log.parent.mkdir()
    paths.termination_log.write_text("old " * 4000)
    status.write_termination(paths, DriverError(Code.IN_USE, "größe " * 3000, "remedy " * 3000))
    text = paths.termination_log.read_text()
    assert len(text.encode()) <= status.TERMINATION_LIMIT and text.count("\n") == 1
    assert json.loads(text)["code"] == "in-use" and json.loads(text)["exit_status"] == 6
