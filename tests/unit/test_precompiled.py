"""Images for one kernel: their tag, their own modules before all others, any other kernel refused unless asked for."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from driverctr import config as settings
from driverctr import nextkernels, prebuild
from driverctr.errors import Code, DriverError
from driverctr.facts.loading import SIGNATURE_MARK
from driverctr.log import Log
from driverctr.modules import ModuleSet, Source, describe, key, write_manifest
from driverctr.modules.store import Store
from driverctr.modules.supply import Search, Supply
from driverctr.node import read as read_node
from driverctr.paths import Paths
from driverctr.plan import Plan, StepName, make
from driverctr.preflight import Result
from driverctr.survey import Facts, Observation
from driverctr.userspace import tag
from driverctr.userspace.image import Image
from driverctr.versions import KernelRelease
from driverctr.wishes import make_wish
from harness import bases, dockerd, precompiled
from harness import image as harness_image
from harness.bases import Base
from harness.flavours import FLAVOURS, Flavour
from tests.unit.conftest import make_tree
from tests.unit.fake_life import Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import GOOD_NODE, facts
from tests.unit.module_files import module_bytes
from tests.unit.test_module_keys import IMAGE, KERNEL, VERSION
from tests.unit.test_warm_start import NAMES, WISH
from tests.unit.test_warm_start import made as made

OWN = replace(IMAGE, kernel_release=KERNEL.release, distribution_version="12")
OTHER = replace(OWN, kernel_release="6.1.0-55-amd64")
CONFIG = settings.load({})
FALLBACK = settings.load({"PRECOMPILED_FALLBACK": "true"})


@pytest.mark.parametrize(
    ("name", "version", "release", "wanted"),
    [
        ("ubuntu", "22.04", "5.15.0-105-generic", "535-5.15.0-105-generic-ubuntu22.04"),
        ("rhel", "9.4", "5.14.0-427.el9.x86_64", "535-5.14.0-427.el9.x86_64-rhel9"),
        ("rocky", "9.4", "5.14.0-427.el9.x86_64", "535-5.14.0-427.el9.x86_64-rocky9"),
        ("debian", "12", "6.1.0-56-amd64", "535-6.1.0-56-amd64-debian12"),
        ("debian", "13", "6.12.73+deb13-amd64", "535-6.12.73_deb13-amd64-debian13"),
        ("debian", "", "6.1.0-56-amd64", "535-6.1.0-56-amd64-debian"),
    ],
)
def test_the_tag_names_branch_kernel_and_distribution(name: str, version: str, release: str, wanted: str) -> None:
    assert tag.for_kernel(Image(VERSION, (), name, "amd64", version), release) == wanted


@pytest.mark.parametrize("flavour", FLAVOURS.values())
def test_the_harness_names_images_as_the_program_asks_for_them(flavour: Flavour) -> None:
    version = {"debian": "12", "ubuntu": "22.04", "rhel": "9.4"}[flavour.name]
    described = Image(VERSION, (), flavour.name, "amd64", version)
    release = "6.12.73+deb13-amd64"
    assert precompiled.tag(release, VERSION.text, flavour.os_tag) == tag.for_kernel(described, release)


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        (Base("ubuntu:24.04", {"OS_TAG": "ubuntu24.04"}), "ubuntu24.04"),
        (Base("ubuntu:22.04"), "ubuntu22.04"),
        (None, "ubuntu22.04"),
    ],
)
def test_an_image_on_a_base_of_the_users_is_tagged_as_that(
    monkeypatch: pytest.MonkeyPatch, base: Base | None, wanted: str
) -> None:
    client = MagicMock()
    monkeypatch.setattr(dockerd, "client", lambda: client)
    monkeypatch.setattr(bases, "of", lambda *_: Base("test", {"OS_TAG": "ubuntu22.04-test"}))
    monkeypatch.setattr(harness_image, "build", lambda *_: "made")
    made = precompiled.build("6.8.0-45-generic", "535.309.01", FLAVOURS["ubuntu"], base=base)
    assert made == f"driverctr:535-6.8.0-45-generic-{wanted}"
    client.images.get("made").tag.assert_called_once_with("driverctr", made.partition(":")[2])


def seen(image: Image, supply: Supply) -> Facts:
    """A node that runs KERNEL."""
    learned = tuple(Observation(StepName.MODULES, source, error) for source, error in supply.refusals.items())
    return facts(image=image, wish=WISH, to_load=NAMES, supply=supply, observations=learned)


def look(paths: Paths, image: Image, kernel_version: str = KERNEL.version) -> Supply:
    config = settings.load({"MODULES_DIR": str(paths.root / "modules")})
    kernel = replace(KERNEL, version=kernel_version)
    return Search(paths, config, image, WISH, kernel, {}, NAMES).look()


def refusal(plan: Plan) -> str:
    (blocker,) = plan.blockers
    assert blocker.code is Code.WRONG_KERNEL
    return f"{blocker.message}. {blocker.remedy}"


def test_another_kernel_is_refused_once_with_both_kernels_and_the_tag_that_fits(paths: Paths, made: ModuleSet) -> None:
    plan = make(CONFIG, seen(OTHER, look(paths, OTHER)))
    told = refusal(plan)
    assert f"for kernel {OTHER.kernel_release}, and the node's is {KERNEL.release}" in told
    assert f"535-{KERNEL.release}-debian12" in told and "PRECOMPILED_FALLBACK=true" in told
    assert plan.steps[1].alternative == "" and not plan.steps[1].alternatives_left


def test_with_the_setting_another_kernel_is_served_from_wherever_modules_are(paths: Paths, made: ModuleSet) -> None:
    plan = make(FALLBACK, seen(OTHER, look(paths, OTHER)))
    assert not plan.blockers and plan.steps[1].alternative == Source.ON_DISK


def test_with_the_setting_an_image_without_source_says_that_it_cannot_build(paths: Paths) -> None:
    found = look(paths, OTHER)
    assert found.key is not None, "store and remote folder can still be asked"
    plan = make(FALLBACK, seen(OTHER, found))
    (blocker,) = plan.blockers
    assert f"precompiled for kernel {OTHER.kernel_release}: it has no module source" in blocker.message
    remote = settings.load(
        {"PRECOMPILED_FALLBACK": "true", "REMOTE_URL": "http://x/", "REMOTE_PUBLIC_KEY": "A" * 43 + "="}
    )
    assert make(remote, seen(OTHER, found)).steps[1].alternative == Source.REMOTE


def test_with_the_setting_an_image_with_its_source_builds(paths: Paths) -> None:
    source = next(each for each in OTHER.sources if each.type == WISH.module_type)
    there = replace(OTHER, sources=(replace(source, path=paths.root),))
    assert make(FALLBACK, seen(there, look(paths, there))).steps[1].alternative == Source.BUILD


def test_what_is_baked_goes_before_an_entry_of_the_store(paths: Paths, made: ModuleSet, log: Log) -> None:
    (paths.root / "var/lib/driverctr").mkdir(parents=True)
    store = Store.open(paths.root / "var/lib/driverctr/store", log)
    shutil.copytree(made.folder, paths.root / "kept")
    store.publish(key.make(WISH, IMAGE, KERNEL), made, None, {})
    shutil.copytree(paths.root / "kept", made.folder, dirs_exist_ok=True)
    own, plain = look(paths, OWN), look(paths, IMAGE)
    assert list(own.builds) == [Source.ON_DISK, Source.STORE] and list(plain.builds) == [Source.STORE, Source.ON_DISK]
    assert make(CONFIG, seen(OWN, own)).steps[1].alternative == Source.ON_DISK
    assert make(CONFIG, seen(IMAGE, plain)).steps[1].alternative == Source.STORE


@pytest.mark.parametrize(
    ("setting", "baked", "wanted"),
    [("auto", "open", "open"), ("auto", "", "proprietary"), ("proprietary", "open", "proprietary")],
)
def test_an_image_of_one_type_wants_that_one_unless_told_otherwise(setting: str, baked: str, wanted: str) -> None:
    config = settings.load({"KERNEL_MODULE_TYPE": setting})
    assert make_wish(config, replace(OWN, module_type=baked), KERNEL.release).module_type == wanted


def with_versions(made: ModuleSet, words: str, paths: Paths) -> None:
    """The set anew, for another build of its kernel and with these words in each vermagic."""
    for module in made.modules.values():
        module.file.write_bytes(
            module_bytes({"version": VERSION.text, "vermagic": f"{WISH.kernel_release} {words} "}, b"\x01" * 20)
        )
    files = {name: describe(module.file) for name, module in made.modules.items()}
    write_manifest(replace(made, kernel_version="#1 SMP Debian 6.1.190-1", modules=files))


def test_another_build_of_the_kernel_is_warned_of_where_the_kernel_compares_symbols(
    paths: Paths, made: ModuleSet
) -> None:
    with_versions(made, "SMP mod_unload modversions", paths)
    plan = make(CONFIG, seen(OWN, look(paths, OWN)))
    assert not plan.blockers and plan.steps[1].alternative == Source.ON_DISK
    assert any("6.1.190-1" in warning and "6.1.192-2" in warning for warning in plan.warnings)
    assert not look(paths, OWN, "#1 SMP Debian 6.1.190-1").other_build and not look(paths, OWN, "").other_build


def test_another_build_of_the_kernel_is_refused_where_nothing_would_tell(paths: Paths, made: ModuleSet) -> None:
    with_versions(made, "SMP mod_unload", paths)
    refused = look(paths, OWN).refusals[Source.ON_DISK]
    assert refused.code is Code.WRONG_KERNEL and "no symbol versions" in refused.message
    assert "no symbol versions" in refusal(make(CONFIG, seen(OWN, look(paths, OWN))))


@pytest.mark.parametrize(("signed", "result"), [(True, Result.UNKNOWN), (False, Result.REFUSED)])
def test_a_node_that_wants_signatures_takes_signed_modules_of_the_image(
    paths: Paths, made: ModuleSet, *, signed: bool, result: Result
) -> None:
    for module in made.modules.values():
        module.file.write_bytes(module.file.read_bytes() + b"\x30\x82signature" + (SIGNATURE_MARK if signed else b""))
    write_manifest(replace(made, modules={name: describe(module.file) for name, module in made.modules.items()}))
    found = look(paths, OWN)
    enforcing = replace(GOOD_NODE.loading, enforced=True)
    node = read_node(paths, WISH, GOOD_NODE.support, None, found.builds[Source.ON_DISK].module_set)
    known = replace(seen(OWN, found), node=replace(GOOD_NODE, loading=enforcing, modules_signed=node.modules_signed))
    plan = make(CONFIG, known)
    assert next(check.result for check in plan.checks if check.name == "signatures") is result
    assert bool(plan.blockers) is not signed


def describe_image(root: Path, built_for: str) -> None:
    document = {
        "driver_version": "535.309.01",
        "sources": [],
        "distribution": "debian",
        "distribution_version": "12",
        "architecture": "amd64",
        "kernel_release": built_for,
    }
    make_tree(root, {"usr/share/driverctr/image.json": json.dumps(document)})


def test_modules_for_a_kernel_that_comes_next_are_a_matter_of_another_image(life: Life, paths: Paths) -> None:
    describe_image(paths.root, "6.1.0-56-amd64")
    (paths.root / "var/lib/driverctr").mkdir(parents=True)
    tools = life.start.tools
    assert prebuild.find_store(tools) is None
    with pytest.raises(DriverError, match=r"for kernel 6\.1\.0-56-amd64, and the node's is 6\.1\.0-57") as refused:
        nextkernels.foresee(paths, CONFIG, KernelRelease("6.1.0-57-amd64"))
    assert "535-6.1.0-57-amd64-debian12" in refused.value.remedy
