"""What an entry was built against: compared with the host's headers where it has not served yet, never a refusal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from driverctr import config as settings
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.hashing import sha256
from driverctr.log import Log
from driverctr.modules import ModuleSet, Source, aside, key, pins, provenance
from driverctr.modules.drafts import Draft, keep
from driverctr.modules.entry import Entry
from driverctr.modules.pins import Good
from driverctr.modules.provenance import Doubt
from driverctr.modules.store import Store
from driverctr.modules.supply import Search, Supply
from driverctr.paths import Paths
from driverctr.plan import Plan, PlannedStep, StepName, make
from driverctr.survey import Observation, survey
from tests.unit.conftest import make_tree
from tests.unit.fake_life import life as life
from tests.unit.good_node import GOOD_NODE, facts
from tests.unit.stored import make_draft, said
from tests.unit.test_headers import FLAVOUR, split_tree
from tests.unit.test_module_keys import IMAGE, KERNEL
from tests.unit.test_warm_start import NAMES, WISH, insert
from tests.unit.test_warm_start import made as made

WANTED = key.make(WISH, IMAGE, KERNEL)
AHEAD = replace(WANTED, kernel_build_id="")
OTHER = "ee" * 32
NO_BUILD = Observation("modules", Source.BUILD, DriverError(Code.BUILD_FAILED, "nv.c:1: no"))


@pytest.fixture
def config(paths: Paths) -> Config:
    """A node with the headers of its kernel, a folder for the store, and nothing on disk."""
    split_tree(paths.root)
    (paths.root / FLAVOUR / "Module.symvers").write_text("0x12345678 pci_enable vmlinux EXPORT_SYMBOL\n")
    (paths.root / "var/lib/driverctr").mkdir(parents=True)
    return settings.load({"MODULES_DIR": str(paths.root / "none"), "KERNEL_MODULE_TYPE": "open"})


@pytest.fixture
def store(paths: Paths, config: Config, log: Log) -> Store:
    return Store.open(paths.root / "var/lib/driverctr/store", log)


def at_hand(paths: Paths) -> dict[str, str]:
    return provenance.of_headers(paths.root / FLAVOUR)


def search(paths: Paths, config: Config) -> Supply:
    stack = {name: found for name in ("nvidia", "nvidia_uvm") if (found := modules.read(paths, name))}
    return Search(paths, config, IMAGE, WISH, KERNEL, stack, NAMES).look()


def plan_of(config: Config, found: Supply, *learned: Observation, build_allowed: bool = True) -> Plan:
    return make(config, facts(supply=found, observations=learned), build_allowed=build_allowed)


def modules_step(made: Plan) -> PlannedStep:
    return next(step for step in made.steps if step.name is StepName.MODULES)


def test_what_is_recorded_are_the_configuration_and_the_symbols_of_the_headers(paths: Paths, config: Config) -> None:
    headers = paths.root / FLAVOUR
    symbols = sha256(headers / "Module.symvers")
    expected = {"config_sha256": sha256(headers / "include/config/auto.conf"), "symvers_sha256": symbols}
    assert provenance.of_headers(headers) == expected
    (headers / ".config").write_text("CONFIG_X=y\n")
    (headers / "Module.symvers").unlink()
    assert provenance.of_headers(headers) == {"config_sha256": sha256(headers / ".config"), "symvers_sha256": ""}


@pytest.mark.parametrize("field", ["config_sha256", "symvers_sha256"])
def test_an_entry_built_against_other_headers_is_left_for_a_build_and_the_field_is_named(
    paths: Paths, config: Config, store: Store, made: ModuleSet, field: str
) -> None:
    store.publish(WANTED, made, None, {**at_hand(paths), field: OTHER})
    found = search(paths, config)
    step = modules_step(plan_of(config, found))
    reason = next(other.reason for other in step.set_aside if other.alternative == Source.STORE)
    assert step.alternative == Source.BUILD and "built against other headers than the host has" in reason
    assert f"differs in {field}: wanted {at_hand(paths)[field][:12]}..., there {OTHER[:12]}..." in reason


def no_headers(paths: Paths) -> None:
    (paths.root / "usr/lib/modules" / WISH.kernel_release / "build").unlink()


def another_builds_headers(paths: Paths) -> None:
    (paths.root / FLAVOUR / "include/generated/utsversion.h").write_text('#define UTS_VERSION "#2"\n')


@pytest.mark.parametrize("change", [no_headers, another_builds_headers])
def test_without_headers_of_that_very_kernel_an_entry_is_taken(
    paths: Paths, config: Config, store: Store, made: ModuleSet, change: Callable[[Paths], None]
) -> None:
    change(paths)
    store.publish(WANTED, made, None, {"config_sha256": OTHER, "symvers_sha256": OTHER})
    found = search(paths, config)
    assert found.doubt is None and modules_step(plan_of(config, found)).alternative == Source.STORE


@pytest.mark.parametrize("record", [{}, {"symvers_sha256": ""}, {"compiler": "gcc-11"}, None])
def test_what_is_not_recorded_or_is_the_same_is_no_difference(
    paths: Paths, config: Config, store: Store, made: ModuleSet, record: dict[str, str] | None
) -> None:
    store.publish(WANTED, made, None, at_hand(paths) if record is None else record)
    assert search(paths, config).doubt is None


@pytest.mark.parametrize("reason", ["served", "loaded"])
def test_where_the_kernel_has_judged_the_modules_no_headers_are_read(
    paths: Paths, config: Config, store: Store, made: ModuleSet, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(WANTED, made, None, {"symvers_sha256": OTHER})
    if reason == "served":
        pins.record_good(store.folder, Good(WANTED))
    else:
        insert(paths, *NAMES)
    monkeypatch.setattr(provenance, "of_headers", lambda folder: pytest.fail("read"))
    found = search(paths, config)
    assert found.doubt is None and (Source.LOADED in found.kept) is (reason == "loaded")


def test_pins_that_cannot_be_read_are_no_proof_that_it_served(
    paths: Paths, config: Config, store: Store, made: ModuleSet
) -> None:
    store.publish(WANTED, made, None, {"symvers_sha256": OTHER})
    (store.folder / pins.FILE).write_text("x")
    assert search(paths, config).doubt is not None


@pytest.fixture
def doubted(paths: Paths, config: Config, store: Store, made: ModuleSet) -> Supply:
    """What is found where the entry for this kernel was built against other headers."""
    store.publish(WANTED, made, None, {"symvers_sha256": OTHER})
    return search(paths, config)


def test_an_entry_in_doubt_is_taken_where_nothing_else_can_be_had(config: Config, doubted: Supply) -> None:
    for planned in (plan_of(config, doubted, NO_BUILD), plan_of(config, doubted, build_allowed=False)):
        assert modules_step(planned).alternative == Source.STORE and not planned.blockers
        assert planned.warnings == (doubted.doubt and doubted.doubt.reason,)


def test_a_build_without_room_gives_way_to_the_entry_in_doubt(config: Config, doubted: Supply) -> None:
    assert GOOD_NODE.room is not None
    full = replace(GOOD_NODE, room=replace(GOOD_NODE.room, disk=1))
    planned = make(config, facts(supply=doubted, node=full))
    assert modules_step(planned).alternative == Source.STORE and not planned.blockers


def test_the_room_for_a_build_is_looked_at_where_the_only_entry_is_in_doubt(
    paths: Paths, config: Config, doubted: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(paths.root, {"proc/self/mountinfo": ""})
    monkeypatch.setattr("driverctr.survey.image.read", lambda root: IMAGE)
    monkeypatch.setattr("driverctr.survey.kernel.read", lambda root: KERNEL)
    for found, looked in ((doubted, True), (replace(doubted, doubt=None), False)):
        monkeypatch.setattr(Search, "look", lambda self, found=found: found)
        assert (survey(paths, config).node.room is not None) is looked


def built(paths: Paths, content: str = "new", failure: DriverError | None = None) -> Callable[[], object]:
    """A build against the host's headers."""

    @contextmanager
    def draft() -> Iterator[Draft]:
        if failure:
            raise failure
        yield Draft(make_draft(paths.root / "draft", WANTED, content), at_hand(paths))

    return draft


def keep_built(paths: Paths, store: Store, doubt: Doubt | None, draft: Callable[[], object]) -> ModuleSet:
    folder = paths.root / "none"
    kept = keep(draft, WANTED, store, folder, lambda seconds: None, store.log, doubt=doubt)  # type: ignore[arg-type]  # a stand-in
    return kept.module_set


def test_what_is_built_takes_the_place_of_the_entry_in_doubt_and_is_in_none(
    paths: Paths, config: Config, store: Store, doubted: Supply
) -> None:
    assert doubted.doubt is not None
    found = keep_built(paths, store, doubted.doubt, built(paths))
    assert found == store.find(WANTED).module_set != doubted.doubt.entry.module_set
    assert doubted.doubt.reason in said(store.log) and len(list((store.folder / "aside").iterdir())) == 1
    assert search(paths, config).doubt is None


def test_what_is_built_is_taken_though_the_entry_in_doubt_cannot_be_moved(
    paths: Paths, store: Store, doubted: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(aside, "move", refuse)
    found = keep_built(paths, store, doubted.doubt, built(paths))
    assert doubted.doubt and store.find(WANTED).module_set == doubted.doubt.entry.module_set
    assert found.folder.is_relative_to(paths.root / "none") and found.modules["nvidia"].file.is_file()
    assert "could not be moved" in said(store.log)


def test_a_build_that_fails_leaves_the_entry_in_doubt_where_it_is(paths: Paths, store: Store, doubted: Supply) -> None:
    failure = DriverError(Code.BUILD_FAILED, "nv.c:1: no")
    with pytest.raises(DriverError, match=r"nv\.c:1"):
        keep_built(paths, store, doubted.doubt, built(paths, failure=failure))
    assert doubted.doubt and store.find(WANTED).module_set == doubted.doubt.entry.module_set


def test_what_another_process_put_in_its_place_meanwhile_is_taken(paths: Paths, store: Store, doubted: Supply) -> None:
    theirs = keep_built(paths, store, doubted.doubt, built(paths))
    unneeded = built(paths, failure=DriverError(Code.BUILD_FAILED, "built twice"))
    assert keep_built(paths, store, doubted.doubt, unneeded) == theirs


def test_an_entry_made_before_its_kernel_ran_stays_beside_the_one_built_in_its_stead(
    paths: Paths, config: Config, store: Store, made: ModuleSet
) -> None:
    before: Entry = store.publish(AHEAD, made, None, {"symvers_sha256": OTHER})
    found = search(paths, config)
    assert found.doubt and found.doubt.entry.key == AHEAD
    built_now = keep_built(paths, store, found.doubt, built(paths))
    assert store.find(WANTED).module_set == built_now and store.find(AHEAD).module_set == before.module_set


def test_a_compiler_that_is_not_the_kernels_is_told_whatever_it_is_called(store: Store, made: ModuleSet) -> None:
    kernel = replace(KERNEL, cc_version_text="x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0")
    entry = store.publish(WANTED, made, None, {"compiler": "gcc-12 (Debian 12.2.0-14) 12.2.0"})
    assert provenance.describe_compiler(entry, kernel) == ""
    assert provenance.describe_compiler(entry, replace(kernel, cc_version_text="")) == ""
    assert provenance.describe_compiler(replace(entry, provenance={}), kernel) == ""
    other = replace(kernel, cc_version_text="gcc-12 (Debian 12.2.0-15) 12.2.0")
    assert provenance.describe_compiler(entry, other) == (
        "built with gcc-12 (Debian 12.2.0-14) 12.2.0, the kernel with gcc-12 (Debian 12.2.0-15) 12.2.0"
    )


def test_links_of_the_host_lead_to_its_own_headers(paths: Paths, store: Store, made: ModuleSet) -> None:
    host = "proc/1/root"
    make_tree(paths.root, {"proc/1/ns/mnt": "-> mnt:[1]", "proc/self/ns/mnt": "-> mnt:[2]"})
    split_tree(paths.root / host)
    (paths.root / host / FLAVOUR / "Module.symvers").write_text("0xffffffff pci_enable vmlinux EXPORT_SYMBOL\n")
    entry = store.publish(WANTED, made, None, at_hand(paths))
    found = provenance.judge(store, entry, KERNEL, paths.root)
    assert found is not None and "symvers_sha256" in found.reason and "config_sha256" not in found.reason
