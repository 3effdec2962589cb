"""What served before was of another version: whether it can return is known beforehand, and said when it cannot."""

import json
from dataclasses import replace

import pytest

from driverctr import config as settings
from driverctr import report, survey
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.facts.modules import LoadedModule
from driverctr.modules import ModuleSet, Source, pins
from driverctr.modules.former import Former
from driverctr.modules.loaded import Loaded, Record
from driverctr.modules.pins import Good
from driverctr.modules.store import Store
from driverctr.modules.supply import Search
from driverctr.paths import Paths
from driverctr.plan import Plan, StepName, make
from tests.unit.good_node import facts
from tests.unit.test_lifecycle import Life
from tests.unit.test_lifecycle import life as life
from tests.unit.test_module_keys import IMAGE, KERNEL
from tests.unit.test_store_start import WANTED, search
from tests.unit.test_store_start import config as config
from tests.unit.test_store_start import store as store
from tests.unit.test_warm_start import LOADED, NAMES, WISH, insert
from tests.unit.test_warm_start import made as made

OLD = "470.1"
GONE = Former(lacks=f"no userspace of {OLD}")
CORE = {"nvidia": LoadedModule("nvidia", OLD, "", "", "live", 0, ())}


def plan(former: Former | None, stack: dict[str, LoadedModule] | None = None) -> Plan:
    return make(settings.load({}), facts(stack=stack or {}, supply=replace(facts().supply, former=former)))


def test_a_loaded_driver_of_another_version_has_no_userspace_to_return_to(paths: Paths, config: Config) -> None:
    insert(paths, "nvidia", version=OLD)
    found = Search(paths, config, IMAGE, WISH, KERNEL, modules.read_stack(paths), NAMES).look()
    assert found.former == GONE and found.good is None and not found.kept


def test_so_has_what_served_last_by_the_stores_word(paths: Paths, config: Config, store: Store) -> None:
    pins.record_good(store.folder, Good(replace(WANTED, driver_version=OLD), {}))
    assert search(paths, config).former == GONE


def test_what_served_on_another_kernel_is_not_missed(paths: Paths, config: Config, store: Store) -> None:
    pins.record_good(store.folder, Good(replace(WANTED, driver_version=OLD, kernel_version="#2"), {}))
    assert search(paths, config).former is None


def test_another_build_of_this_version_that_served_before_it_can_return(
    paths: Paths, config: Config, store: Store, made: ModuleSet
) -> None:
    store.publish(WANTED, made, None, {})
    pins.record_good(store.folder, Good(WANTED, {"nvidia": ("NVreg_Shown=1",), "nvidia-uvm": ()}))
    pins.record_good(store.folder, Good(replace(WANTED, driver_version=OLD), {}))
    found = search(paths, config)
    assert found.good is not None and found.good.build.key == WANTED
    pins.record_good(store.folder, Good(WANTED, {"nvidia": (), "nvidia-uvm": ()}))
    pins.record_good(store.folder, Good(replace(WANTED, driver_version=OLD), {}))
    assert search(paths, config).former == GONE, "that is what is wanted now"


def test_an_entry_that_is_gone_is_no_way_back(paths: Paths, config: Config, store: Store) -> None:
    pins.record_good(store.folder, Good(WANTED, {"nvidia": (), "nvidia-uvm": ()}))
    assert search(paths, config).former is None


@pytest.mark.parametrize("stack", [CORE, {}])
def test_the_plan_says_beforehand_that_there_is_no_way_back(stack: dict[str, LoadedModule]) -> None:
    warning = f"if {facts().wish.driver_version} does not load, rollback is impossible: no userspace of {OLD}"
    made = plan(GONE, stack)
    assert made.warnings == (warning,) and not made.blockers
    assert f"Warning: {warning}" in report.format_plan(made)
    assert json.loads(json.dumps(made.as_dict()))["warnings"] == [warning]
    assert warning in report.format_checks(made)


def test_nothing_is_said_where_nothing_gives_way() -> None:
    assert not plan(None).warnings
    there = plan(Former(Record(LOADED, {})))
    check = next(check for check in there.checks if check.name == "rollback")
    assert not there.warnings and "returns if what is wanted does not load" in check.evidence
    kept = replace(facts().supply, former=GONE, kept={Source.LOADED: Loaded(LOADED)})
    assert not make(settings.load({}), facts(stack=CORE, supply=kept)).warnings


def test_a_start_whose_modules_do_not_load_says_that_there_was_no_way_back(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = facts(stack=CORE, supply=replace(facts().supply, former=GONE))
    monkeypatch.setattr(survey, "survey", lambda *_: known)
    life.steps[StepName.LOAD].once = DriverError(Code.LOAD_FAILED, "modprobe nvidia failed: no", "Look there")
    with pytest.raises(DriverError) as failed:
        life.start.run()
    told = (failed.value.code, failed.value.message, failed.value.remedy)
    words = f"modprobe nvidia failed: no; rollback impossible: no userspace of {OLD}"
    assert told == (Code.LOAD_FAILED, words, "Look there")
    assert life.start.told.failure["message"] == words and life.start.told.phase == "failed"
    assert f"rollback is impossible: no userspace of {OLD}" in life.log, "as a warning before anything is touched"


RETURNS = facts(supply=replace(facts().supply, former=Former(Record(LOADED, {}), is_loaded=True)))


def test_a_return_that_fails_too_is_told_beside_the_first_cause(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: RETURNS)
    life.steps[StepName.LOAD].once = DriverError(Code.LOAD_FAILED, "first")
    life.steps[StepName.VERIFY].failures[""] = DriverError(Code.NOT_READY, "second")
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert (failed.value.code, failed.value.message) == (Code.LOAD_FAILED, "first; rollback impossible: second")


def test_new_modules_that_do_not_go_are_no_silent_end_of_the_return(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: RETURNS)
    life.steps[StepName.VERIFY].once = DriverError(Code.GPU_INIT_FAILED, "first")
    life.steps[StepName.LOAD].failures["undo"] = DriverError(Code.UNLOAD_FAILED, "rmmod nvidia_uvm: busy")
    with pytest.raises(DriverError) as failed:
        life.start.run()
    assert failed.value.message == "first; rollback impossible: rmmod nvidia_uvm: busy"
    assert "modules:last-good" not in life.told
