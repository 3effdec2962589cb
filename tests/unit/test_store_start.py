"""The store in a start: looked up by key, checked before use, written to by a build, returned to after a failure."""

from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import ModuleSet, Source, key, pins
from driverctr.modules.loaded import Build, Loaded
from driverctr.modules.pins import Good
from driverctr.modules.store import Store
from driverctr.modules.supply import Search, Supply
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, StepName, make
from driverctr.steps import Gained
from driverctr.steps.modules import Modules
from tests.unit.fake_life import Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import facts
from tests.unit.test_module_keys import IMAGE, KERNEL
from tests.unit.test_warm_start import LOADED, NAMES, WISH, ask
from tests.unit.test_warm_start import made as made

WANTED = key.make(WISH, IMAGE, KERNEL)


@pytest.fixture
def config(paths: Paths) -> Config:
    """A node with a folder for the store, and nothing on disk."""
    (paths.root / "var/lib/driverctr").mkdir(parents=True)
    return settings.load({"MODULES_DIR": str(paths.root / "none")})


@pytest.fixture
def store(paths: Paths, config: Config, log: Log) -> Store:
    return Store.open(paths.root / "var/lib/driverctr/store", log)


def search(paths: Paths, config: Config) -> Supply:
    return Search(paths, config, IMAGE, WISH, KERNEL, {}, NAMES).look()


def test_an_entry_is_found_by_the_key_and_planned_before_all_that_takes_longer(
    paths: Paths, config: Config, store: Store, made: ModuleSet
) -> None:
    assert "it is empty" in search(paths, config).refusals[Source.STORE].message
    store.publish(WANTED, made, None, {})
    found = search(paths, config)
    assert found.builds[Source.STORE].key == WANTED and found.good is None
    assert make(config, facts(supply=found)).steps[1].alternative == Source.STORE


def test_a_miss_names_the_field_that_differs(paths: Paths, config: Config, store: Store, made: ModuleSet) -> None:
    store.publish(replace(WANTED, kernel_version="#2"), made, None, {})
    assert "kernel_version: wanted #1 SMP" in search(paths, config).refusals[Source.STORE].message


def test_no_store_and_one_that_is_not_to_be_trusted_are_told_and_refuse_nothing(paths: Paths, config: Config) -> None:
    (paths.root / "var/lib/driverctr/store").mkdir(mode=0o777)
    (paths.root / "var/lib/driverctr/store").chmod(0o777)
    untrusted = search(paths, config)
    assert untrusted.store is None and untrusted.refusals[Source.STORE].code is Code.STORE_UNUSABLE
    none = search(paths, replace(config, store_dir=Path("/srv/nowhere/store")))
    assert none.store is None and "there is no store" in none.refusals[Source.STORE].message
    assert make(config, facts(supply=none)).steps[1].alternative == Source.BUILD


def test_a_damaged_entry_is_set_aside_when_it_is_to_be_used(
    life: Life, paths: Paths, config: Config, store: Store, made: ModuleSet
) -> None:
    entry = store.publish(WANTED, made, None, {})
    file = entry.folder / "nvidia.ko"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = search(paths, config)
    assert Source.STORE in found.builds, found.refusals
    planned = PlannedStep(StepName.MODULES, "", Source.STORE)
    with pytest.raises(DriverError, match=r"nvidia\.ko"):
        Modules().apply(life.start.tools, planned, facts(supply=found, to_load=NAMES), Gained())
    assert store.entries() == () and Source.STORE not in search(paths, config).builds


def test_what_served_last_on_this_kernel_is_offered_unless_it_is_what_is_wanted(
    paths: Paths, config: Config, store: Store, made: ModuleSet
) -> None:
    store.publish(WANTED, made, None, {})
    pins.record_good(store.folder, Good(WANTED, {"nvidia": ("NVreg_Shown=1",), "nvidia-uvm": ()}))
    found = search(paths, config).good
    assert found is not None and found.parameters["nvidia"] == ("NVreg_Shown=1",)
    ask(paths, "NVreg_Shown=1")
    assert search(paths, config).good is None


@pytest.mark.parametrize("change", [{"kernel_version": "#2"}, {"driver_version": "470.1"}, {"kernel_build_id": "cd"}])
def test_what_served_on_another_kernel_or_version_is_not(
    paths: Paths, config: Config, store: Store, made: ModuleSet, change: dict[str, str]
) -> None:
    other = replace(WANTED, **change)  # type: ignore[arg-type]  # texts all
    store.publish(other, replace(made, driver_version=other.driver_version), None, {})
    pins.record_good(store.folder, Good(other, {}))
    assert search(paths, config).good is None


@pytest.mark.parametrize(
    ("gained", "recorded"),
    [
        (Gained(source=Source.STORE), True),
        (Gained(source=Source.LAST_GOOD), False),
        (Gained(source=Source.LOADED, kept=Loaded(LOADED)), True),
        (Gained(source=Source.LOADED, kept=Loaded(LOADED, stale=("x",))), False),
    ],
)
def test_what_became_ready_is_pinned(life: Life, store: Store, made: ModuleSet, gained: Gained, recorded: bool) -> None:
    life.start.way_up.gained = replace(gained, build=Build(made, WANTED), parameters={"nvidia": ("a=1",)})
    life.start.way_up.facts = facts(supply=Supply(store=store))
    life.start.remember_good()
    assert [good.parameters for good in pins.read(store.folder).good] == ([{"nvidia": ("a=1",)}] if recorded else [])
