"""Modules in the tree that modprobe reads: each as described, with what they need of the host, before any unload."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr import hashing, moduletree, survey
from driverctr.errors import Code, DriverError
from driverctr.facts.hostroot import HostRoot, Reach
from driverctr.facts.modules import LoadedModule
from driverctr.hashing import Hashes, sha256
from driverctr.kmod import Kmod
from driverctr.modules import PEERMEM, ModuleSet, Source, describe, needed_of_host
from driverctr.modules.loaded import Build, Loaded
from driverctr.modules.supply import Supply
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, StepName, make
from driverctr.preflight import Result
from driverctr.settings import GpuNeed
from driverctr.steps import Gained, Tools
from driverctr.steps.load import Load
from driverctr.steps.modules import Modules, furnish
from driverctr.survey import find_lacking, modules_beside
from driverctr.verify import check_beside, recall
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_life import FORWARD, Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import facts
from tests.unit.module_files import module_bytes

RELEASE = "6.1.0-56-amd64"
NAMES = ("nvidia", "nvidia-uvm")
OF_THE_OPEN = "pre: ecdh_generic,ecdsa_generic post: other"


def module_set(folder: Path, **fields: dict[str, str]) -> ModuleSet:
    """A set with nvidia, nvidia-uvm and nvidia-peermem; `fields` are more of .modinfo, by the module's name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*NAMES, PEERMEM):
        more = fields.get(name.replace("-", "_"), {})
        (folder / f"{name}.ko").write_bytes(module_bytes({"vermagic": f"{RELEASE} SMP ", "of": name, **more}))
    files = {name: describe(folder / f"{name}.ko") for name in (*NAMES, PEERMEM)}
    return ModuleSet(folder, RELEASE, "", "535.309.01", "open", files)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder of another filesystem than the test's node, as the store's is."""
    folder = Path("/dev/shm") / f"driverctr-test-{os.getpid()}"
    yield folder
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.fixture
def tools(life: Life, fake_bin: FakeBin) -> Tools:
    """Fakes of kmod's tools: depmod leaves an index, modprobe fails for what a test names in `fails`."""
    root = life.start.tools.paths.root
    fake_bin.add("depmod", ': > "$2/lib/modules/$3/modules.dep.bin"')
    words = f'/bin/grep -qsx "$1" {root}/fails || exit 0; echo "modprobe: ERROR: Unknown symbol in module" >&2; exit 1'
    fake_bin.add("modprobe", words)
    make_tree(root, {"proc/self/mountinfo": "", "fails": ""})
    return replace(life.start.tools, kmod=Kmod(fake_bin.environment, paths=life.start.tools.paths))


def fail(tools: Tools, *names: str) -> None:
    (tools.paths.root / "fails").write_text("".join(f"{name}\n" for name in names))


def load(tools: Tools, found: ModuleSet, **changes: object) -> Gained:
    gained = Gained(build=Build(found), source=Source.STORE, parameters=dict.fromkeys(NAMES, ()))
    known = replace(facts(to_load=NAMES), **changes)  # type: ignore[arg-type]  # fields of Facts
    return Load().apply(tools, PlannedStep(StepName.LOAD, ""), known, gained).gained


def test_what_modules_need_of_the_host_is_what_they_name_and_is_not_ours(tmp_path: Path) -> None:
    found = module_set(
        tmp_path,
        nvidia={"depends": "drm,ecc", "softdep": OF_THE_OPEN},
        nvidia_uvm={"depends": "nvidia,drm"},
        nvidia_peermem={"depends": "nvidia,ib_core"},
    )
    assert needed_of_host(found, NAMES) == ("drm", "ecc")
    assert needed_of_host(found, NAMES, softly=True) == ("drm", "ecc", "ecdh_generic", "ecdsa_generic")
    (tmp_path / "nvidia.ko").unlink()
    with pytest.raises(DriverError, match=r"nvidia\.ko"):
        needed_of_host(found, NAMES)


def test_the_hosts_modules_that_ours_name_are_put_into_the_tree_and_loaded_first(
    tools: Tools, tmp_path: Path, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = module_set(tmp_path / "set", nvidia={"depends": "ecc", "softdep": OF_THE_OPEN})
    crypto = f"lib/modules/{RELEASE}/kernel/crypto"
    names = ("ecc", "ecdh_generic", "ecdsa_generic")
    make_tree(tools.paths.root, {f"host/{crypto}/{name}.ko": name for name in names})
    tree = "$2/lib/modules/$4/kernel/crypto/$6.ko"
    fake_bin.add("modprobe", f'[ "$1" = -d ] || exit 0; [ -e {tree} ] && echo "insmod {tree}"')
    monkeypatch.setattr(moduletree, "host_place", lambda *_: HostRoot(tools.paths.root / "host", Reach.PROCESS))
    assert furnish(tools, found, NAMES) == names
    assert (tools.paths.root / crypto / "ecdsa_generic.ko").read_text() == "ecdsa_generic"


@pytest.mark.parametrize(("visible", "remedy"), [(False, "--pid=host"), (True, "linux-modules-extra")])
def test_a_module_of_the_host_that_is_missing_is_not_blamed_on_ours(
    tools: Tools, tmp_path: Path, visible: bool, remedy: str
) -> None:
    found = module_set(tmp_path, nvidia={"depends": "drm"})
    fail(tools, "nvidia")
    with pytest.raises(DriverError, match="drm of the host's kernel, which our nvidia needs, is not loaded") as failed:
        load(tools, found, host_modules=visible)
    assert failed.value.code is Code.LOAD_FAILED and remedy in failed.value.remedy
    make_tree(tools.paths.root, {"sys/module/drm/refcnt": "0"})
    with pytest.raises(DriverError) as failed:
        load(tools, found, host_modules=visible)
    assert failed.value.code is Code.UNKNOWN_SYMBOL


def test_what_another_of_our_modules_needs_of_the_host_is_no_excuse_for_one_that_is_wrong(
    tools: Tools, tmp_path: Path
) -> None:
    found = module_set(tmp_path, nvidia_uvm={"depends": "nvidia,video"})
    fail(tools, "nvidia")
    with pytest.raises(DriverError) as failed:
        load(tools, found)
    assert failed.value.code is Code.UNKNOWN_SYMBOL
    fail(tools, "nvidia-uvm")
    with pytest.raises(DriverError, match="video of the host's kernel, which our nvidia-uvm needs"):
        load(tools, found)


def test_a_module_of_the_host_that_does_not_load_is_told_and_ours_are_tried(
    tools: Tools, tmp_path: Path, life: Life, fake_bin: FakeBin
) -> None:
    fail(tools, "ecdh_generic")
    gained = Gained(
        build=Build(module_set(tmp_path)), parameters=dict.fromkeys(NAMES, ()), host_modules=("ecdh_generic",)
    )
    Load().apply(tools, PlannedStep(StepName.LOAD, ""), facts(), gained)
    assert "ecdh_generic of the host's kernel does not load" in life.log
    assert fake_bin.calls[-2:] == ["modprobe nvidia", "modprobe nvidia-uvm"]


def test_what_the_host_lacks_is_refused_before_anything_is_touched_where_no_packages_may_be_fetched() -> None:
    lacks = facts(host_modules=False, host_lacks=("drm",))
    (blocker,) = make(settings.load({}), lacks, build_allowed=False).blockers
    assert blocker.code is Code.LOAD_FAILED and "need drm" in blocker.message and "--pid=host" in blocker.remedy
    core = LoadedModule("nvidia", "535.309.01", "", "", "live", 0, ())
    kept = replace(lacks, stack={"nvidia": core}, supply=Supply(kept={Source.LOADED: Loaded(Build(module_less()))}))
    assert not make(settings.load({}), kept, build_allowed=False).blockers
    assert not make(settings.load({}), facts(host_modules=False), build_allowed=False).blockers


def test_the_plan_tells_that_packages_are_asked_for_and_not_whether_they_can_be_had() -> None:
    made = make(settings.load({}), facts(host_modules=False, host_lacks=("drm",)))
    assert not made.blockers
    (step,) = (step for step in made.steps if step.name is StepName.MODULE_TREE)
    assert step.what.endswith("fetch packages with drm") and step.unknown == "whether packages can be had"
    (check,) = (check for check in made.checks if check.name == "host-modules")
    assert check.result is Result.UNKNOWN and "need drm" in check.evidence
    (step,) = (step for step in make(settings.load({}), facts()).steps if step.name is StepName.MODULE_TREE)
    assert "packages" not in step.what and not step.unknown and not step.alternative


def module_less() -> ModuleSet:
    return ModuleSet(Path("/set"), RELEASE, "", "535.309.01", "open", {})


def test_the_host_lacks_what_is_neither_loaded_nor_built_in_nor_in_our_own_tree(paths: Paths, tmp_path: Path) -> None:
    found = module_set(tmp_path / "set", nvidia={"depends": "drm,ecc,video,i2c-algo-bit"})
    tree = f"lib/modules/{RELEASE}"
    make_tree(paths.root, {"sys/module/video/refcnt": "0", f"{tree}/kernel/crypto/ecc.ko.xz": "of the image"})
    assert find_lacking(paths, found, NAMES) == ("drm", "i2c-algo-bit")
    make_tree(paths.root, {f"{tree}/modules.builtin": "kernel/drivers/i2c/algos/i2c-algo-bit.ko\n"})
    assert find_lacking(paths, found, NAMES) == ("drm",)


RDMA = settings.load({"GPU_DIRECT_RDMA_ENABLED": "true"})


def test_peermem_is_asked_for_where_there_is_a_mellanox_nic_and_never_one_of_the_modules_that_must_load() -> None:
    assert modules_beside(RDMA, mellanox=True) == (PEERMEM,)
    assert modules_beside(RDMA, mellanox=False) == modules_beside(settings.load({}), mellanox=True) == ()
    assert PEERMEM not in survey.TO_LOAD


def test_peermem_lies_in_the_tree_where_rdma_is_asked_for(tools: Tools, tmp_path: Path) -> None:
    found = module_set(tmp_path)
    folder = tools.paths.modules_tree(RELEASE) / hashing.OURS
    furnish(tools, found, NAMES)
    assert not (folder / f"{PEERMEM}.ko").exists()
    furnish(replace(tools, config=RDMA), found, NAMES)
    assert (folder / f"{PEERMEM}.ko").exists()


def test_a_driver_serves_without_peermem_and_says_so(tools: Tools, tmp_path: Path, fake_bin: FakeBin) -> None:
    found = module_set(tmp_path)
    fail(tools, PEERMEM)
    gained = load(tools, found, beside=(PEERMEM,))
    told = gained.lacks[PEERMEM]
    assert f"{PEERMEM} was asked for and is not loaded" in told and "symbol" in told
    expected = gained.expected(GpuNeed())
    (finding,) = check_beside(tools.paths, recall(json.loads(json.dumps(expected.as_dict()))))
    assert (finding.text, finding.serves, finding.gone) == (told, True, False)
    fail(tools)
    assert load(tools, found, beside=(PEERMEM,)).lacks == {} and fake_bin.calls[-1] == f"modprobe {PEERMEM}"
    make_tree(tools.paths.root, {"sys/module/nvidia_peermem/refcnt": "0"})
    calls = len(fake_bin.calls)
    load(tools, found, beside=(PEERMEM,))
    assert len(fake_bin.calls) == calls + len(NAMES), "it is loaded already"
    assert check_beside(tools.paths, expected) == [], "by whomever"


def test_a_copy_is_believed_by_its_content_not_by_size_and_time(tools: Tools, elsewhere: Path) -> None:
    found = module_set(elsewhere)
    furnish(tools, found, NAMES)
    copy = tools.paths.modules_tree(RELEASE) / hashing.OURS / "nvidia.ko"
    times = copy.stat()
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    furnish(tools, found, NAMES)
    assert sha256(copy) == found.modules["nvidia"].sha256


def test_a_file_that_changes_between_hashing_and_copying_is_not_left_in_the_tree(tools: Tools, elsewhere: Path) -> None:
    found = module_set(elsewhere)
    file = found.modules["nvidia"].file
    assert tools.hashes.of(file) == found.modules["nvidia"].sha256
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DriverError, match=r"nvidia\.ko is not the file its manifest describes") as refused:
        furnish(tools, found, NAMES)
    assert refused.value.code is Code.NO_MODULES
    assert not (tools.paths.modules_tree(RELEASE) / hashing.OURS / "nvidia.ko").exists()


def test_no_byte_is_hashed_twice_in_a_start(tools: Tools, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = module_set(elsewhere)
    hashed: list[str] = []

    def note(name: hashing.Name) -> str:
        hashed.append(str(name))
        return sha256(name)

    monkeypatch.setattr(hashing, "sha256", note)
    known = facts(supply=Supply(builds={Source.STORE: Build(found)}), to_load=NAMES)
    planned = PlannedStep(StepName.MODULES, "", Source.STORE)

    def start() -> list[str]:
        hashed.clear()
        anew = replace(tools, hashes=Hashes())
        gained = Modules().apply(anew, planned, known, Gained()).gained
        furnish(anew, gained.module_set, NAMES)
        return sorted(hashed)

    sources = {name: str(module.file) for name, module in found.modules.items()}
    assert start() == sorted(sources.values())
    copies = {name: str(tools.paths.modules_tree(RELEASE) / hashing.OURS / f"{name}.ko") for name in NAMES}
    assert start() == sorted({**sources, **copies}.values()), "what is loaded is hashed, not what it was copied from"


def test_what_the_store_gave_up_meanwhile_is_had_elsewhere_and_nothing_was_unloaded(life: Life) -> None:
    gone = DriverError(Code.NO_MODULES, "/store/nvidia.ko: No such file or directory")
    life.steps[StepName.MODULE_TREE].once = gone
    life.start.way_up.run()
    assert life.told == ["withdraw", "modules:on-disk", "module-tree", "modules:build", *FORWARD[2:]]


def test_a_tree_that_cannot_be_written_ends_the_start_before_anything_is_unloaded(life: Life) -> None:
    life.steps[StepName.MODULE_TREE].once = DriverError(Code.LOAD_FAILED, "/lib/modules cannot be written")
    with pytest.raises(DriverError, match="cannot be written"):
        life.start.way_up.run()
    assert "unload" not in life.told and "modules:build" not in life.told


def test_hashing_begins_with_the_copy_that_will_be_loaded(tmp_path: Path) -> None:
    release = os.uname().release
    make_tree(tmp_path, {f"sets/{release}/535.1-open/{name}.ko": name for name in hashing.USUAL})
    tree = f"lib/modules/{release}/{hashing.OURS}"
    make_tree(tmp_path, {f"{tree}/nvidia.ko": "NVIDIA", f"{tree}/nvidia-uvm.ko": "of another size"})
    nowhere = str(tmp_path / "none")
    hashes = hashing.begin_early({"MODULES_DIR": str(tmp_path / "sets"), "STORE_DIR": nowhere}, f"{tmp_path}/")
    assert str(Paths(tmp_path).modules_tree(release) / hashing.OURS / "nvidia.ko") in hashes._tasks
    begun = [Path(name).relative_to(tmp_path).parts[0] for name in hashes._tasks]
    assert begun == ["lib", "sets", "sets"]
