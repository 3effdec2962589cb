"""Modules of the host's kernel that are nowhere on the node come from its packages, and only then."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from driverctr import distros, moduletree
from driverctr.distros import CertificatePlace, HeaderPackages
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts.hostroot import HostRoot, Reach
from driverctr.facts.osrelease import OsRelease
from driverctr.headers import Packages, show_both
from driverctr.hostmodules import ALONE, HostModules
from driverctr.modules import Source
from driverctr.modules.loaded import Build
from driverctr.mounts import propagation
from driverctr.packages import Sources
from driverctr.packages.apt import Apt
from driverctr.paths import Paths
from driverctr.plan import NO_PACKAGES, PlannedStep, StepName
from driverctr.run import Runner
from driverctr.steps import Gained, Tools
from driverctr.steps import modules as steps
from driverctr.steps.modules import ModuleTree
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_apt import add as add
from tests.unit.fake_apt import apt as apt
from tests.unit.fake_apt import pauses as pauses
from tests.unit.fake_apt import root as root
from tests.unit.fake_life import Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import facts
from tests.unit.test_module_tree import NAMES, RELEASE, module_set
from tests.unit.test_module_tree import tools as tools

MODULES, EXTRA = f"linux-modules-{RELEASE}", f"linux-modules-extra-{RELEASE}"


def module(depends: str = "", release: str = RELEASE) -> str:
    """A module as the fake modinfo prints it."""
    return f"filename:       x.ko\ndepends:        {depends}\nname:           x\nvermagic:       {release} SMP\n"


BASE = {"kernel/i2c/i2c-algo-bit.ko": module(), "kernel/net/other.ko": module(), "modules.builtin": ""}
SOME = {"kernel/gpu/drm_kms.ko.xz": module("drm,i2c-algo-bit"), "kernel/gpu/drm.ko.xz": module()}


@dataclass
class Tool:
    """A package tool that has, by place, packages with the files of a module tree, or fails there."""

    has: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    fails: Mapping[str, DriverError] = field(default_factory=dict)
    lib: str = "lib"
    calls: list[str] = field(default_factory=list)
    then: Callable[[], object] = list

    def _ask(self, place: str, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        self.calls.append(f"{place} {wanted.package}")
        self.then()
        if error := self.fails.get(place):
            raise error
        assert not wanted.companions.fullmatch("initramfs-tools")
        found = self.has.get(place, {}).get(wanted.package)
        if found is None:
            raise DriverError(Code.HEADERS_MISSING, f"no {wanted.package} by {place}")
        make_tree(into, {f"{self.lib}/modules/{RELEASE}/{name}": text for name, text in found.items()})
        return (wanted.package,)

    def fetch(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        return self._ask("fetch", wanted, into)

    def from_folder(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        return self._ask("from_folder", wanted, into)

    def from_archive(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        return self._ask("from_archive", wanted, into)


def asking(tool: Tool, root: Path, archive: str = "https://archive.example a b") -> Packages:
    (root / "drivers/packages").mkdir(parents=True, exist_ok=True)
    sources = Sources(CertificatePlace(Path("/x"), ()), archive=archive, root=root)
    return Packages(tool, HeaderPackages("linux-headers", ALONE), sources)


@pytest.fixture
def search(paths: Paths, runner: Runner, fake_bin: FakeBin, tmp_path: Path) -> Callable[[Tool], HostModules]:
    """A search with a modinfo that prints the file."""
    fake_bin.add("modinfo", '/bin/cat "$1"')
    (tmp_path / "scratch").mkdir()
    return lambda tool: HostModules(paths, runner, asking(tool, paths.root), (MODULES, EXTRA), tmp_path / "scratch")


Search = Callable[[Tool], HostModules]


def test_a_package_is_asked_for_only_until_all_is_there(search: Search) -> None:
    tool = Tool({"fetch": {MODULES: {**BASE, **SOME}, EXTRA: {}}})
    place = search(tool).find(RELEASE, ["drm_kms"])
    assert tool.calls == [f"from_folder {MODULES}", f"from_folder {EXTRA}", f"fetch {MODULES}"]
    assert (place.path / f"lib/modules/{RELEASE}/kernel/gpu/drm_kms.ko.xz").is_file()


def test_what_a_module_depends_on_is_looked_for_in_the_next_package(search: Search, paths: Paths) -> None:
    has = {"fetch": {MODULES: SOME, EXTRA: BASE}}
    tool = Tool(has)
    search(tool).find(RELEASE, ["drm-kms"])
    assert tool.calls[-2:] == [f"fetch {MODULES}", f"fetch {EXTRA}"]
    make_tree(paths.root, {"sys/module/i2c_algo_bit/refcnt": "1"})
    tool = Tool(has)
    search(tool).find(RELEASE, ["drm-kms"])
    assert tool.calls[-1] == f"fetch {MODULES}", "what is loaded is not looked for"


@pytest.mark.parametrize("place", ["from_folder", "fetch", "from_archive"])
@pytest.mark.parametrize("lib", ["lib", "usr/lib"])
def test_every_place_serves_and_packages_with_either_folder(search: Search, place: str, lib: str) -> None:
    tool = Tool({place: {EXTRA: {**BASE, **SOME}}}, lib=lib)
    found = search(tool).find(RELEASE, ["drm_kms"]).path
    for folder in ("lib", "usr/lib"):
        assert (found / folder / f"modules/{RELEASE}/modules.builtin").is_file()


def test_both_folders_at_once_stay_as_they_are(tmp_path: Path) -> None:
    make_tree(tmp_path, {"lib/modules/a": "", "usr/lib/modules/b": ""})
    show_both(tmp_path)
    assert not (tmp_path / "lib/modules").is_symlink() and not (tmp_path / "usr/lib/modules").is_symlink()


def test_modules_that_are_nowhere_are_told_with_every_place_and_package(search: Search) -> None:
    tool = Tool({"from_folder": {MODULES: BASE}})
    with pytest.raises(DriverError) as raised:
        search(tool).find(RELEASE, ["drm"])
    told = (
        f"PACKAGES_DIR=/drivers/packages: {MODULES} has no drm for {RELEASE}; no {EXTRA} by from_folder",
        f"repositories: no {MODULES} by fetch; no {EXTRA} by fetch",
        f"ARCHIVE_URL: no {MODULES} by from_archive",
    )
    positions = [raised.value.message.find(words) for words in told]
    assert -1 not in positions and positions == sorted(positions), raised.value.message
    assert raised.value.code is Code.LOAD_FAILED


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (module(release="6.1.0-55-amd64"), f"drm of kernel 6.1.0-55-amd64, not of {RELEASE}"),
        ("modinfo: ERROR: could not get modinfo", f"drm of kernel unknown, not of {RELEASE}"),
    ],
)
def test_modules_of_another_kernel_are_refused(search: Search, file: str, told: str) -> None:
    with pytest.raises(DriverError, match=told):
        search(Tool({"fetch": {MODULES: {"kernel/drm.ko": file}}})).find(RELEASE, ["drm"])


def test_a_place_that_fails_is_asked_for_no_other_package_and_the_next_place_is(search: Search) -> None:
    unreachable = DriverError(Code.PACKAGES_FAILED, "Could not resolve 'mirror'")
    tool = Tool({"from_archive": {MODULES: SOME, EXTRA: BASE}}, {"fetch": unreachable})
    search(tool).find(RELEASE, ["drm"])
    assert tool.calls[2:] == [f"fetch {MODULES}", f"from_archive {MODULES}"]
    with pytest.raises(DriverError, match="repositories: Could not resolve 'mirror'; ARCHIVE_URL: no"):
        search(Tool(fails={"fetch": unreachable})).find(RELEASE, ["drm"])


def test_a_full_disk_ends_the_search(search: Search) -> None:
    tool = Tool(fails={"from_folder": DriverError(Code.NO_SPACE, "full")})
    with pytest.raises(DriverError) as raised:
        search(tool).find(RELEASE, ["drm"])
    assert raised.value.code is Code.NO_SPACE and len(tool.calls) == 1


def test_a_second_package_of_one_place_does_not_bring_the_first_again(
    apt: Apt, add: Callable[..., None], fake_bin: FakeBin, tmp_path: Path
) -> None:
    add()
    for name in (MODULES, EXTRA):
        assert apt.fetch(HeaderPackages(name, ALONE), tmp_path / "into") == (name,)
    unpacked = [call.split()[2].rpartition("/")[2] for call in fake_bin.calls if call.startswith("dpkg-deb")]
    assert [name.partition("_")[0] for name in unpacked] == [MODULES, EXTRA]


@dataclass
class Node:
    """A node whose nvidia needs drm, with a package tool."""

    tools: Tools
    found: Gained
    tool: Tool

    def furnish(self, *, visible: bool = False, alternative: str = "") -> Gained:
        known = facts(host_modules=visible, to_load=NAMES)
        return (
            ModuleTree().apply(self.tools, PlannedStep(StepName.MODULE_TREE, "", alternative), known, self.found).gained
        )

    @property
    def tree(self) -> set[str]:
        tree = self.tools.paths.modules_tree(RELEASE)
        return {str(file.relative_to(tree)) for file in tree.rglob("*.ko*") if not file.is_symlink()}

    @property
    def scratch(self) -> list[Path]:
        return list((self.tools.paths.root / "var/tmp").iterdir())


@pytest.fixture
def node(tools: Tools, tmp_path: Path, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Packages have drm_kms and what it depends on, and more; modprobe knows them below an indexed tree."""
    monkeypatch.setattr(propagation, "settle", lambda paths: None)
    fake_bin.add("modinfo", '/bin/cat "$1"')
    shown = "kernel/i2c/i2c-algo-bit.ko kernel/gpu/drm.ko.xz kernel/gpu/drm_kms.ko.xz"
    fake_bin.add(
        "modprobe",
        f'[ "$6" = drm_kms ] && [ -e "$2/lib/modules/$4/modules.dep.bin" ] || exit 1\n'
        f'for file in {shown}; do echo "insmod $2/lib/modules/$4/$file"; done',
    )
    root = tools.paths.root
    make_tree(root, {"etc/os-release": "ID=debian\nVERSION_ID=12\n", "proc/sys/kernel/osrelease": RELEASE})
    tool = Tool({"fetch": {f"linux-image-{RELEASE}": {**BASE, **SOME}}})
    monkeypatch.setattr(steps, "packages_of", lambda *words: asking(tool, root))
    built = Build(module_set(tmp_path / "set", nvidia={"depends": "drm_kms"}))
    return Node(tools, Gained(build=built, source=Source.BUILD, parameters=dict.fromkeys(NAMES, ())), tool)


def test_only_what_ours_need_is_taken_of_the_packages(node: Node) -> None:
    assert node.furnish().host_modules == ("drm_kms",)
    assert node.tree == {"kernel/i2c/i2c-algo-bit.ko", "kernel/gpu/drm.ko.xz", "kernel/gpu/drm_kms.ko.xz"}
    assert node.scratch == []
    calls = len(node.tool.calls)
    node.furnish()
    assert len(node.tool.calls) == calls, "they are in our own tree now"


def test_nothing_is_asked_for_what_is_loaded_built_in_or_in_the_hosts_tree(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = node.tools.paths.root
    host = f"host/lib/modules/{RELEASE}"
    make_tree(root, {f"{host}/{name}": text for name, text in {**BASE, **SOME, "modules.dep.bin": ""}.items()})
    with monkeypatch.context() as visible:
        visible.setattr(moduletree, "host_place", lambda *_: HostRoot(root / "host", Reach.PROCESS))
        assert node.furnish(visible=True).host_modules == ("drm_kms",)
    for file in node.tools.paths.modules_tree(RELEASE).rglob("kernel/gpu/*"):
        file.unlink()
    (node.tools.paths.modules_tree(RELEASE) / "modules.builtin").write_text("kernel/gpu/drm_kms.ko\n")
    node.furnish()
    (node.tools.paths.modules_tree(RELEASE) / "modules.builtin").write_text("")
    make_tree(root, {"sys/module/drm_kms/refcnt": "0"})
    node.furnish()
    assert node.tool.calls == []


def test_a_tree_of_the_host_that_lacks_them_is_filled_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    root = node.tools.paths.root
    make_tree(root, {f"host/lib/modules/{RELEASE}/modules.builtin": ""})
    monkeypatch.setattr(moduletree, "host_place", lambda *_: HostRoot(root / "host", Reach.PROCESS))
    assert node.furnish(visible=True).host_modules == ("drm_kms",)
    assert "kernel/gpu/drm_kms.ko.xz" in node.tree


@pytest.mark.parametrize(
    ("visible", "why", "remedy"),
    [(False, "tree is not visible", "--pid=host"), (True, "not in the host's module tree", "linux-modules-extra")],
)
def test_where_no_packages_may_be_fetched_it_is_refused_as_before(
    node: Node, visible: bool, why: str, remedy: str
) -> None:
    with pytest.raises(DriverError, match=f"need drm_kms of the host's kernel, which is not loaded, .*{why}") as raised:
        node.furnish(visible=visible, alternative=NO_PACKAGES)
    assert raised.value.code is Code.LOAD_FAILED and remedy in raised.value.remedy
    assert node.tool.calls == []


def test_where_none_can_be_had_each_place_is_told_beside_what_is_needed(node: Node) -> None:
    node.tool.has = {}
    with pytest.raises(
        DriverError, match=r"need drm_kms of the host's kernel.*not visible; .*repositories: no"
    ) as raised:
        node.furnish()
    assert raised.value.code is Code.LOAD_FAILED
    assert "--pid=host" in raised.value.remedy and "PACKAGES_DIR" in raised.value.remedy
    assert node.scratch == []


def test_an_image_of_an_unknown_distribution_is_part_of_the_refusal(node: Node) -> None:
    (node.tools.paths.root / "etc/os-release").write_text("ID=other\n")
    with pytest.raises(DriverError, match=r"need drm_kms .*; the distribution of this image is not known") as raised:
        node.furnish()
    assert raised.value.code is Code.LOAD_FAILED


def test_a_full_disk_is_told_as_such(node: Node) -> None:
    node.tool.fails = {"from_folder": DriverError(Code.NO_SPACE, "full")}
    with pytest.raises(DriverError) as raised:
        node.furnish()
    assert raised.value.code is Code.NO_SPACE


def test_a_signal_ends_what_is_being_fetched(node: Node, life: Life) -> None:
    node.tool.then = lambda: node.tools.signals._on_stop(signal.SIGTERM, None)
    with pytest.raises(Stopped):
        node.furnish()
    assert len(node.tool.calls) == 1 and node.scratch == [] and ModuleTree.interruptible


def test_the_settings_and_the_mismatch_reach_the_packages_as_they_do_for_headers(
    tools: Tools, fake_bin: FakeBin, tmp_path: Path
) -> None:
    root = tools.paths.root
    make_tree(root, {"host-etc/os-release": "ID=flatcar\n", "proc/sys/kernel/version": "#1 SMP Debian 6.1.128-1"})
    configured = replace(tools, config=replace(tools.config, archive_url="https://archive.example a b"))
    packages = steps.packages_of(configured, distros.of(OsRelease("debian", "12")), RELEASE, tmp_path)
    assert not packages.sources.defaults and "flatcar" in packages.sources.reason
    assert packages.sources.archive == "https://archive.example a b"
