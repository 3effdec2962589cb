"""What served before was of another version: whether it can return is known beforehand, and said when it cannot."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr import doctor, markers, planview, survey
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.facts.modules import LoadedModule
from driverctr.modules import ModuleSet, Source, pins, userspaces
from driverctr.modules.former import Former
from driverctr.modules.loaded import Build, Loaded, Record
from driverctr.modules.pins import Good
from driverctr.modules.store import Store
from driverctr.modules.supply import Search, Supply
from driverctr.modules.userspaces import Userspaces
from driverctr.mounts import propagation
from driverctr.paths import Paths
from driverctr.plan import Plan, PlannedStep, StepName, make
from driverctr.planview import View
from driverctr.steps import Gained, unload
from driverctr.steps import userspace as steps_userspace
from driverctr.steps.markers import Publish
from driverctr.steps.userspace import Userspace
from driverctr.userspace import listing
from driverctr.userspace.listing import Listing
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_life import Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import ON_DISK, facts
from tests.unit.test_driverroot import container, targets
from tests.unit.test_module_keys import IMAGE, KERNEL
from tests.unit.test_store_start import WANTED, search
from tests.unit.test_store_start import config as config
from tests.unit.test_store_start import store as store
from tests.unit.test_userspaces import PLATFORM, make_root
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
    assert f"Warning: {warning}" in planview.describe(View(made))
    assert json.loads(json.dumps(made.as_dict()))["warnings"] == [warning]
    assert warning in doctor.describe(made)


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


@pytest.fixture
def kept(store: Store, paths: Paths, made: ModuleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Userspaces:
    """The old version has served: its modules are in the store and pinned, its userspace is kept."""
    monkeypatch.setattr(userspaces, "SPARE", 0)
    make_root(paths.root, IMAGE.driver_version.text)
    make_tree(paths.root, {"etc/ld.so.cache": "ours"})
    key = replace(WANTED, driver_version=OLD)
    store.publish(key, replace(made, driver_version=OLD), None, {})
    pins.record_good(store.folder, Good(key, {"nvidia": ("NVreg_Shown=1",), "nvidia-uvm": ()}))
    found = Userspaces(store)
    found.keep(make_root(tmp_path / "old", OLD), tmp_path / "old", lambda: None)
    return found


def test_with_its_userspace_kept_it_can_return(paths: Paths, config: Config, kept: Userspaces) -> None:
    found = search(paths, config)
    assert found.former is not None and found.former.record is not None and not found.former.is_loaded
    assert (found.former.driver_version, found.former.userspace) == (OLD, kept.find(OLD, PLATFORM))
    assert found.former.record.parameters["nvidia"] == ("NVreg_Shown=1",) and Source.LAST_GOOD not in found.kept


def test_what_returned_is_kept_in_the_kernel_by_the_next_start(
    paths: Paths, config: Config, kept: Userspaces, made: ModuleSet
) -> None:
    insert(paths, *NAMES, version=OLD)
    found = Search(paths, config, IMAGE, WISH, KERNEL, modules.read_stack(paths), NAMES).look()
    assert found.former is not None and found.former.is_loaded and found.former.userspace is not None
    assert (
        found.kept[Source.LAST_GOOD].build.module_set.driver_version == OLD and not found.kept[Source.LAST_GOOD].stale
    )


def lose_own_listing(paths: Paths, kept: Userspaces) -> None:
    (paths.root / listing.LISTING).unlink()


def lose_content(paths: Paths, kept: Userspaces) -> None:
    kept.file(kept.find(OLD, PLATFORM).items[0]).unlink()


def lose_modules(paths: Paths, kept: Userspaces) -> None:
    (entry,) = kept.store.entries()
    (entry.folder / "nvidia.ko").unlink()


def lose_a_module_of_the_pins(paths: Paths, kept: Userspaces) -> None:
    pins.record_good(kept.store.folder, Good(replace(WANTED, driver_version=OLD), {"nvidia": ()}))


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lose_own_listing, "the image does not tell what its userspace is"),
        (lose_content, f"no userspace of {OLD}: what was kept of it lacks"),
        (lose_modules, f"no modules of {OLD} for this kernel in the store"),
        (lose_a_module_of_the_pins, f"no modules of {OLD} for this kernel in the store"),
    ],
)
def test_what_a_return_lacks_is_told_beforehand(
    paths: Paths, config: Config, kept: Userspaces, act: Callable[[Paths, Userspaces], None], told: str
) -> None:
    act(paths, kept)
    found = search(paths, config).former
    assert found is not None and found.record is None and told in found.lacks


OLD_SET = replace(LOADED.module_set, driver_version=OLD)
OLD_RETURNS = Former(Record(Build(OLD_SET), {"nvidia": ()}), userspace=Listing(OLD, PLATFORM, ()))


def test_the_plan_of_a_return_puts_its_userspace_in_place_before_anything_runs_of_it() -> None:
    supply = Supply(former=OLD_RETURNS, failed="modprobe: no")
    steps = {step.name: step.what for step in make(settings.load({}), facts(supply=supply)).steps}
    assert list(steps) == list(StepName)
    assert steps[StepName.USERSPACE] == f"put the userspace of {OLD} in place of ours"
    assert steps[StepName.FIRMWARE].startswith(f"place GSP firmware {OLD}")


def test_another_version_returns_whole_and_the_status_tells_it(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    known = facts(supply=replace(facts().supply, former=OLD_RETURNS))
    monkeypatch.setattr(survey, "survey", lambda *_: known)
    life.steps[StepName.LOAD].once = DriverError(Code.LOAD_FAILED, "modprobe nvidia failed: no")
    life.start.way_up.run()
    returned = life.told[life.told.index("modules:last-good") :]
    assert returned == ["modules:last-good", *(name.value for name in list(StepName)[2:])]
    way_up = life.start.way_up
    way_up.gained = replace(way_up.gained, build=Build(OLD_SET), substitutes={"usr/bin": Path("/x")})
    (told,) = life.start.lasting()
    assert f"the build that served last, {OLD} with build-id unknown, with its userspace, instead of" in told
    assert f"instead of the one wanted, {known.wish.driver_version}: modprobe nvidia failed: no" in told
    life.start.tell_step(took=("load", 0.1))
    assert life.start.told.driver_version == OLD


def test_a_userspace_that_cannot_be_put_in_place_is_told_beside_the_first_cause(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = facts(supply=replace(facts().supply, former=OLD_RETURNS))
    monkeypatch.setattr(survey, "survey", lambda *_: known)
    life.steps[StepName.LOAD].once = DriverError(Code.LOAD_FAILED, "first")
    life.steps[StepName.USERSPACE].failures[""] = DriverError(Code.NO_SPACE, "the disk is full")
    with pytest.raises(DriverError) as failed:
        life.start.run()
    told = (failed.value.code, failed.value.message)
    assert told == (Code.LOAD_FAILED, "first; rollback impossible: the disk is full")


def test_the_step_copies_out_of_the_store_and_takes_back(
    life: Life, paths: Paths, config: Config, kept: Userspaces, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = container(paths)
    monkeypatch.setattr(steps_userspace, "Syscalls", lambda: kernel)
    monkeypatch.setattr(propagation, "Syscalls", lambda: kernel)
    fake_bin.add("ldconfig", 'echo cache > "$3"')
    planned = PlannedStep(StepName.USERSPACE, "")
    known = facts(supply=search(paths, config))
    done = Userspace().apply(life.start.tools, planned, known, Gained())
    smi = done.gained.substitutes["usr/bin"] / "nvidia-smi"
    assert smi.read_text() == f"smi {OLD}" and done.undo is not None
    assert "usr/bin" in targets(kernel, "usr")
    Userspace().undo(life.start.tools, done.undo)
    assert targets(kernel, "usr") == targets(kernel, "mnt") == []
    item = kept.find(OLD, PLATFORM).items[0]
    kept.file(item).write_text("x" * item.size)
    with pytest.raises(DriverError, match=f"is not the {item.path} that was listed"):
        Userspace().apply(life.start.tools, planned, known, Gained())
    lacks = search(paths, config).former
    assert lacks is not None and f"no userspace of {OLD}" in lacks.lacks, "what is damaged is not promised again"
    assert targets(kernel, "usr") == []


def test_the_operators_digest_is_not_said_of_what_returned_of_whatever_version(life: Life, paths: Paths) -> None:
    tools = replace(life.start.tools, config=settings.load({"DRIVER_CONFIG_DIGEST": "12"}))
    planned = PlannedStep(StepName.PUBLISH, "")
    Publish().apply(tools, planned, facts(), Gained(Build(ON_DISK), Source.LAST_GOOD))
    assert (paths.run / markers.CONTAINER).exists() and not (paths.run / markers.DIGEST).exists()
    Publish().apply(tools, planned, facts(), Gained(Build(ON_DISK)))
    assert (paths.run / markers.DIGEST).read_text() == "12\n"


def test_the_way_back_is_hashed_while_the_former_driver_still_serves(
    life: Life, paths: Paths, kept: Userspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unload, "check_free", lambda tools: {})
    monkeypatch.setattr(unload, "free", lambda tools: None)
    listed = kept.find(OLD, PLATFORM)
    former = replace(OLD_RETURNS, userspace=listed, is_loaded=True)
    known = facts(stack=CORE, supply=replace(facts().supply, former=former, store=kept.store))
    planned = PlannedStep(StepName.UNLOAD, "")
    unload.Unload().apply(life.start.tools, planned, known, Gained())
    assert "rollback is impossible" not in life.log
    kept.file(listed.items[1]).write_text("x" * listed.items[1].size)
    unload.Unload().apply(life.start.tools, planned, known, Gained())
    assert f"does not load, rollback is impossible: {kept.file(listed.items[1])} is not" in life.log
