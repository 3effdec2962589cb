"""Modules that do not fit, are not whole, or cannot be asked for: each costs a build at most, never the start."""

import os
import signal
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from driverctr import bringup, files, survey
from driverctr import config as settings
from driverctr.config import Config
from driverctr.errors import Code, DriverError, Stopped
from driverctr.hashing import begin_early
from driverctr.kmod import Kmod
from driverctr.log import Log
from driverctr.modules import ModuleSet, Source, drafts, failures, pins
from driverctr.modules.drafts import Draft
from driverctr.modules.former import Former
from driverctr.modules.loaded import Build, Loaded, Record
from driverctr.modules.pins import Good
from driverctr.modules.store import Store
from driverctr.modules.supply import Search, Supply
from driverctr.node import Room
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, StepName, make
from driverctr.steps import Gained, Outcome, Tools
from driverctr.steps.modules import Modules, fetched
from driverctr.survey import Facts, Observation
from tests.unit.conftest import make_tree
from tests.unit.fake_life import FORWARD, FakeStep, Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import GOOD_NODE, facts
from tests.unit.stored import KEY, make_draft, said
from tests.unit.test_module_keys import IMAGE, KERNEL
from tests.unit.test_store_start import WANTED, search
from tests.unit.test_store_start import config as config
from tests.unit.test_store_start import store as store
from tests.unit.test_warm_start import LOADED, NAMES, WISH, ask, insert, judge
from tests.unit.test_warm_start import made as made

CONFIG = settings.load({})
UNFIT = DriverError(Code.UNKNOWN_SYMBOL, "modprobe nvidia failed: disagrees about version of symbol module_layout")
UNDONE = [f"undo {name}" for name in ("driver-root", "firmware", "unload", "module-tree", "modules", "withdraw")]


def test_modules_made_for_another_kernel_give_way_to_a_build(life: Life) -> None:
    life.steps[StepName.LOAD].once = UNFIT
    life.start.way_up.run()
    first = FORWARD[: FORWARD.index("load") + 1]
    assert life.told == [*first, *UNDONE, "modules:build", *FORWARD[2:]]


def test_what_a_build_cannot_cure_is_not_built_again(life: Life) -> None:
    life.steps[StepName.LOAD].once = DriverError(Code.NO_DEVICE, "no device")
    with pytest.raises(DriverError, match="no device"):
        life.start.way_up.run()
    assert "modules:build" not in life.told


def test_what_served_before_returns_at_once_and_no_build_is_waited_for(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = facts(supply=replace(facts().supply, former=Former(Record(LOADED, {}), is_loaded=True)))
    monkeypatch.setattr(survey, "survey", lambda *_: there)
    life.steps[StepName.LOAD].once = UNFIT
    life.start.way_up.run()
    assert "modules:last-good" in life.told and "modules:build" not in life.told


@dataclass
class Had(FakeStep):
    """The step that has the modules, which are those of `build`."""

    build: Build | None = None

    def apply(self, tools: Tools, planned: PlannedStep, known: Facts, gained: Gained) -> Outcome:
        return super().apply(tools, planned, known, replace(gained, build=self.build))


@pytest.fixture
def stored(life: Life, store: Store, made: ModuleSet, monkeypatch: pytest.MonkeyPatch) -> Life:
    """A node whose store has what is wanted; what failed in this boot is remembered."""
    entry = store.publish(WANTED, made, None, {})
    life.steps[StepName.MODULES] = Had(StepName.MODULES, life.told, build=Build(entry.module_set, entry.key))
    monkeypatch.setattr(bringup, "STEPS", tuple(life.steps.values()))

    def look(*_: object) -> Facts:
        tried = failures.attempt(life.start.tools.paths, facts().wish, WANTED, facts().to_load)
        failed = failures.recall(life.start.tools.paths, tried)
        builds = {Source.STORE: Build(entry.module_set, entry.key)}
        return facts(supply=Supply(key=WANTED, builds=builds, store=store, failed=failed))

    monkeypatch.setattr(survey, "survey", look)
    return life


def test_what_no_build_cures_is_built_for_once_and_the_entry_stays(stored: Life, store: Store) -> None:
    stored.steps[StepName.LOAD].failures[""] = UNFIT
    for _ in range(3):
        with pytest.raises(DriverError, match="module_layout") as failed:
            stored.start.way_up.run()
        assert failed.value.code is Code.UNKNOWN_SYMBOL
        stored.start.way_up.rewind()
    assert stored.told.count("modules:store") == 3 and stored.told.count("modules:build") == 1
    assert [entry.key for entry in store.entries()] == [WANTED] and "set aside" not in said(store.log)


def test_what_served_here_before_is_not_what_is_wrong(stored: Life, store: Store) -> None:
    pins.record_good(store.folder, Good(WANTED, {}))
    stored.steps[StepName.LOAD].failures[""] = UNFIT
    with pytest.raises(DriverError, match="module_layout"):
        stored.start.way_up.run()
    assert "modules:build" not in stored.told and store.entries()


def test_what_was_built_in_place_of_an_entry_replaces_it_once_it_serves(
    stored: Life, store: Store, made: ModuleSet, tmp_path: Path
) -> None:
    stored.steps[StepName.LOAD].once = UNFIT
    stored.start.way_up.run()
    assert stored.told.count("modules:build") == 1 and store.entries(), "until then it stays"
    folder = tmp_path / "built"
    recorded = {"compiler": "gcc-12", "symvers_sha256": "ee" * 32}
    draft = Draft(make_draft(folder, replace(KEY, kernel_release=WISH.kernel_release)), recorded)
    build = drafts.keep(lambda: nullcontext(draft), WANTED, None, tmp_path, lambda seconds: None, store.log)
    stored.start.way_up.gained = replace(stored.start.way_up.gained, build=build)
    stored.start.remember_good()
    (entry,) = store.entries()
    assert entry.provenance == recorded
    served = stored.start.way_up.gained.build
    assert entry.module_set.modules["nvidia"].sha256 == build.module_set.modules["nvidia"].sha256
    assert served is not None and served.module_set.folder == entry.folder
    assert "module_layout" in said(store.log) and pins.read(store.folder).good[0].key == WANTED


def test_an_entry_is_taken_no_more_once_what_served_last_serves_in_its_place(stored: Life, store: Store) -> None:
    stored.steps[StepName.LOAD].once = UNFIT
    stored.start.way_up.run()
    stored.start.way_up.gained = Gained(build=LOADED, source=Source.LAST_GOOD)
    stored.start.remember_good()
    assert store.entries() == () and "module_layout" in said(store.log)


def test_a_build_in_place_of_an_unfit_entry_is_not_that_entry(
    life: Life, paths: Paths, store: Store, made: ModuleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store.publish(WANTED, made, None, {})
    given: list[object] = []

    def keep(make: object, key: object, kept_in: object, *_: object) -> Build:
        given.append(kept_in)
        return Build(entry.module_set, entry.key)

    monkeypatch.setattr(drafts, "keep", keep)
    planned = PlannedStep(StepName.MODULES, "", Source.BUILD)
    known = facts(supply=Supply(key=WANTED, store=store), to_load=NAMES)
    refused = replace(known, observations=(Observation(StepName.MODULES, Source.STORE, UNFIT),))
    for each in (known, refused):
        Modules().apply(life.start.tools, planned, each, Gained())
    assert given == [store, None]


def test_a_try_that_serves_is_not_remembered_as_one_that_failed(stored: Life) -> None:
    paths = stored.start.tools.paths
    tried = failures.attempt(paths, facts().wish, WANTED, facts().to_load)
    failures.remember(paths, tried, UNFIT)
    failures.remember(paths, "another", UNFIT)
    stored.start.bring_up()
    assert failures.recall(paths, tried) == "" and failures.recall(paths, "another")
    failures.take_back(paths, "another")
    assert not (paths.own_run / failures.RECORD).exists(), "a clean stop leaves no file"


def test_whatever_keeps_the_remote_folder_from_being_asked_costs_a_build(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: facts(supply=Supply()))
    environment = {"REMOTE_URL": "http://127.0.0.1:9", "REMOTE_PUBLIC_KEY": "/keys/public.pem"}
    tools = replace(life.start.tools, config=settings.load(environment))
    life.start.tools = life.start.way_up.tools = tools
    life.steps[StepName.MODULES].failures["remote"] = DriverError(Code.BAD_SETTING, "/keys/public.pem: no such file")
    life.start.way_up.run()
    assert life.told[:3] == ["withdraw", "modules:remote", "modules:build"]


def test_a_set_that_lacks_a_module_is_refused_and_replaced(
    paths: Paths, config: Config, store: Store, made: ModuleSet, tmp_path: Path, log: Log
) -> None:
    store.publish(WANTED, made, None, {})
    names = (*NAMES, "nvidia-modeset")
    found = Search(paths, config, IMAGE, WISH, KERNEL, {}, names).look()
    assert Source.STORE not in found.builds and "has no nvidia-modeset" in found.refusals[Source.STORE].message
    whole = replace(made, modules={**made.modules, "nvidia-modeset": made.modules["nvidia"]})

    def keep(module_set: ModuleSet) -> Build:
        draft = nullcontext(Draft(module_set, {}))
        return drafts.keep(lambda: draft, WANTED, store, tmp_path / "sets", lambda seconds: None, log, names)

    with pytest.raises(DriverError, match="has no nvidia-modeset"):
        keep(made)
    assert "nvidia-modeset" in keep(whole).module_set.modules


def test_a_loaded_driver_is_not_one_of_a_set_that_lacks_what_is_wanted(paths: Paths, made: ModuleSet) -> None:
    insert(paths, *NAMES)
    with pytest.raises(DriverError, match="has no nvidia-modeset"):
        judge(paths, made, names=(*NAMES, "nvidia-modeset"))


def test_a_store_that_leads_nowhere_or_fails_to_answer_is_told(
    paths: Paths, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (paths.root / "var/lib/driverctr/store").symlink_to("store")
    assert search(paths, config).refusals[Source.STORE].code is Code.STORE_UNUSABLE

    def stale(*_: object) -> Store:
        raise OSError(116, "Stale file handle", "/var/lib/driverctr")

    monkeypatch.setattr(Store, "open", stale)
    assert "Stale file handle" in search(paths, config).refusals[Source.STORE].message


def test_a_build_that_has_no_room_leaves_the_word_to_what_served_before() -> None:
    full = replace(GOOD_NODE, room=Room(Path("/var/tmp"), disk=1, memory=4 * 10**9, headers="the host's"))
    plain = settings.load({})
    nowhere = make(plain, facts(node=full, supply=Supply()))
    assert [blocker.code for blocker in nowhere.blockers] == [Code.NO_SPACE]
    former = Former(Record(LOADED, {}))
    there = make(plain, facts(node=full, supply=Supply(former=former)))
    assert there.blockers == () and there.steps[1].alternative == Source.LAST_GOOD
    assert "0.0 GB free in /var/tmp" in there.why_not(StepName.MODULES, Source.BUILD)
    roomy = make(plain, facts(supply=Supply(former=former)))
    assert roomy.steps[1].alternative == Source.BUILD


def test_what_served_before_what_is_wanted_is_offered_too(
    paths: Paths, config: Config, store: Store, made: ModuleSet
) -> None:
    older = replace(WANTED, source_sha256="33" * 32)
    for key, words in ((older, ()), (WANTED, ("NVreg_Shown=1",))):
        store.publish(key, made, None, {})
        pins.record_good(store.folder, Good(key, {"nvidia": words, "nvidia-uvm": ()}))
    ask(paths, "NVreg_Shown=1")
    found = search(paths, config).former
    assert found is not None and found.record is not None and found.record.build.key == older


def test_a_file_of_the_store_that_is_none_keeps_no_start_waiting(tmp_path: Path) -> None:
    (tmp_path / "store/entries/aa").mkdir(parents=True)
    os.mkfifo(tmp_path / "store/entries/aa/key.json")
    begin_early({"STORE_DIR": str(tmp_path / "store"), "MODULES_DIR": str(tmp_path)}, str(tmp_path))


def test_a_signal_in_the_import_beside_the_hashing_waits_for_its_end(
    life: Life, made: ModuleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, imported = life.start.tools, []

    def prepare(kmod: Kmod) -> None:
        tools.signals._on_stop(signal.SIGTERM, None)
        imported.append("sh")

    monkeypatch.setattr(Kmod, "prepare", prepare)
    known = facts(supply=Supply(builds={Source.ON_DISK: Build(made)}), to_load=NAMES)
    with pytest.raises(Stopped):
        Modules().apply(tools, PlannedStep(StepName.MODULES, "", Source.ON_DISK), known, Gained())
    assert imported == ["sh"]


def test_a_signal_in_the_import_before_a_fetch_waits_for_its_end(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"REMOTE_URL": "http://127.0.0.1:9", "REMOTE_PUBLIC_KEY": "/keys/public.pem"}
    tools, imported = replace(life.start.tools, config=settings.load(environment)), []

    def load_of_others() -> None:
        tools.signals._on_stop(signal.SIGTERM, None)
        imported.append("inspect")

    monkeypatch.setattr("driverctr.steps.modules.load_of_others", load_of_others)
    with pytest.raises(Stopped):
        fetched(tools, WANTED)
    assert imported == ["inspect"]


def test_a_module_that_is_loaded_beside_a_driver_is_hashed_too(life: Life, made: ModuleSet) -> None:
    file = made.modules["nvidia-uvm"].file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    known = facts(supply=Supply(kept={Source.LOADED: Loaded(Build(made), missing=("nvidia-uvm",))}))
    planned = PlannedStep(StepName.MODULES, "", Source.LOADED)
    with pytest.raises(DriverError, match=r"nvidia-uvm\.ko is not the file"):
        Modules().apply(life.start.tools, planned, known, Gained())


def test_two_that_publish_to_one_place_leave_each_other_their_stages(made: ModuleSet, tmp_path: Path) -> None:
    target = tmp_path / "sets/wanted"
    other = target.parent / f".wanted.stage-{os.getpid()}"
    make_tree(other, {"nvidia.ko": "of another container"})
    with files.claimed(other):
        assert drafts.publish(Draft(made, {}), target).folder == target
    assert (other / "nvidia.ko").read_text() == "of another container"


LACKS = "nvidia 580.95.05 has no parameter NVreg_CoherentGPUMemoryMode"


@pytest.mark.parametrize(("version", "told"), [("535.309.01", False), ("580.95.05", True)])
def test_a_parameter_of_ours_that_a_branch_should_have_and_has_not_is_told_in_plan_and_log(
    life: Life, made: ModuleSet, version: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Build(replace(made, driver_version=version))
    there = make(CONFIG, facts(supply=Supply(builds={Source.ON_DISK: build})))
    assert any(LACKS in warning for warning in there.warnings) is told and not there.blockers
    loaded = make(CONFIG, facts(supply=Supply(kept={Source.LOADED: Loaded(build)})))
    assert any(LACKS in warning for warning in loaded.warnings) is told
    monkeypatch.setattr(Modules, "_obtain", lambda *_: build)
    known = facts(supply=Supply(), to_load=NAMES)
    Modules().apply(life.start.tools, PlannedStep(StepName.MODULES, "", Source.BUILD), known, Gained())
    assert (LACKS in life.log) is told


def test_a_manifest_that_tells_no_parameters_is_no_lack(made: ModuleSet) -> None:
    modules = {name: replace(module, parameters={}) for name, module in made.modules.items()}
    build = Build(replace(made, driver_version="580.95.05", modules=modules))
    assert not make(CONFIG, facts(supply=Supply(builds={Source.ON_DISK: build}))).warnings
