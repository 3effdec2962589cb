"""Finding headers: split and whole trees, of the host and from packages, and each reason to refuse one."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from driverctr import node as facts_of_node
from driverctr.distros import CertificatePlace, HeaderPackages
from driverctr.errors import Code, DriverError
from driverctr.facts import hostroot, kernel
from driverctr.headers import Headers, HeaderSearch, Origin, Packages, PackageSource
from driverctr.log import Log
from driverctr.packages import Sources
from driverctr.paths import Paths
from driverctr.run import Runner
from tests.unit.conftest import FakeBin, make_tree

RELEASE = "6.1.0-56-amd64"
FLAVOUR = f"usr/src/linux-headers-{RELEASE}"
COMMON = "usr/src/linux-headers-6.1.0-56-common"
KBUILD = "usr/lib/linux-kbuild-6.1"
CONFIG = 'CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14) 12.2.0"\n'
GENERATED: dict[str, str | None] = {
    "include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n',
    "include/generated/utsversion.h": '#define UTS_VERSION "#1 SMP Debian 6.1.192-2"\n',
    "include/generated/uapi/linux/version.h": "#define LINUX_VERSION_CODE 393664\n",
    "include/config/auto.conf": CONFIG,
    "Module.symvers": "",
    "vmlinux": "for BTF",
}


def below(folder: str, files: dict[str, str | None]) -> dict[str, str | None]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def add_tools(folder: Path, script: str = "exit 1") -> None:
    for name in ("scripts/basic/fixdep", "scripts/mod/modpost"):
        tool = folder / name
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)


def split_tree(root: Path, tools: str = "exit 1") -> None:
    """Debian's: a flavour whose Makefile includes the common part by its absolute name, tools in /usr/lib."""
    make_tree(
        root,
        {
            **below(FLAVOUR, GENERATED),
            f"{FLAVOUR}/Makefile": f"include /{COMMON}/Makefile\n",
            f"{FLAVOUR}/scripts": "-> ../../lib/linux-kbuild-6.1/scripts",
            f"{COMMON}/Makefile": "all:\n",
            f"{COMMON}/include/linux/pci.h": "",
            f"{COMMON}/scripts": "-> ../../lib/linux-kbuild-6.1/scripts",
            f"usr/lib/modules/{RELEASE}/build": f"-> /{FLAVOUR}",
            "lib": "-> usr/lib",
        },
    )
    add_tools(root / KBUILD, tools)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A root with nothing on it."""
    folder = tmp_path / "node"
    folder.mkdir()
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The build's own folder."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def find(node: Path, scratch: Path, runner: Runner, log: Log, packages: PackageSource | None = None) -> Headers:
    return HeaderSearch(runner, log, scratch, packages, node).find(RELEASE)


def test_a_split_tree_is_joined_wherever_it_lies(node: Path, scratch: Path, runner: Runner, log: Log) -> None:
    split_tree(node)
    found = find(node, scratch, runner, log)
    assert found.origin is Origin.HOST
    assert found.source_dir == node / COMMON
    assert (found.build_dir / "Makefile").read_text() == f"include {node / COMMON}/Makefile\n"
    assert (found.build_dir / "scripts").resolve() == node / KBUILD / "scripts"
    assert (found.build_dir / "include/generated/utsrelease.h").exists()
    assert not (found.build_dir / "vmlinux").exists()
    assert found.build_dir.is_relative_to(scratch)
    assert (found.kernel_version, found.linux_version) == ("#1 SMP Debian 6.1.192-2", (6, 1, 192))
    assert found.cc_version_text == "gcc-12 (Debian 12.2.0-14) 12.2.0"


def test_a_whole_tree_is_used_in_place(node: Path, scratch: Path, runner: Runner, log: Log) -> None:
    kernels = f"usr/src/kernels/{RELEASE}"
    make_tree(node, {**below(kernels, GENERATED), f"{kernels}/Makefile": "# Kbuild's own\n"})
    make_tree(node, {f"lib/modules/{RELEASE}/build": f"-> /{kernels}"})
    add_tools(node / kernels)
    found = find(node, scratch, runner, log)
    assert found.build_dir == found.source_dir == node / kernels


@pytest.mark.allow_process("cp")
def test_what_only_process_1_shows_is_copied(
    node: Path, scratch: Path, runner: Runner, log: Log, fake_bin: FakeBin
) -> None:
    (fake_bin.folder / "cp").symlink_to("/bin/cp")
    make_tree(node, {"proc/1/ns/mnt": "-> mnt:[1]", "proc/self/ns/mnt": "-> mnt:[2]"})
    host = node / "proc/1/root"
    host.mkdir()
    split_tree(host)
    found = find(node, scratch, runner, log)
    assert found.origin is Origin.HOST
    assert found.source_dir == scratch / "host" / COMMON
    assert (found.source_dir / "include/linux/pci.h").exists()
    assert (found.source_dir / "scripts/mod/modpost").resolve().is_relative_to(scratch)
    assert not (scratch / "host" / FLAVOUR / "vmlinux").exists()
    assert all(path.resolve().is_relative_to(scratch) for path in found.build_dir.iterdir())


def test_headers_are_found_where_the_users_module_folder_was_set_aside(
    paths: Paths, scratch: Path, runner: Runner, log: Log
) -> None:
    """What links in that folder lead to is mounted in place: it is set aside alone."""
    split_tree(paths.root)
    aside = paths.root / hostroot.ASIDE
    aside.mkdir(parents=True)
    (paths.root / "usr/lib/modules").rename(aside / "modules")
    (aside / "lib").mkdir()
    (aside / "modules").rename(aside / "lib/modules")
    found = find(paths.root, scratch, runner, log)
    assert (found.origin, found.source_dir) == (Origin.HOST, paths.root / COMMON)
    assert found.place == f"folders mounted from the host /{FLAVOUR}"
    assert facts_of_node.headers_place(paths, RELEASE) == f"folders mounted from the host: /{FLAVOUR}"
    assert kernel.read(paths.root, RELEASE).cc_version_text.startswith("gcc-12 ")


class Tool:
    """A package tool that has headers in one place; what it was asked, in order."""

    def __init__(self, has: str = "", fails: Mapping[str, DriverError] | None = None) -> None:
        """`fails` are errors of other places, by the name of the call."""
        self.has, self.fails, self.calls = has, fails or {}, list[str]()

    def _ask(self, name: str, into: Path) -> tuple[str, ...]:
        self.calls.append(name)
        if self.has != name:
            raise self.fails.get(name, DriverError(Code.HEADERS_MISSING, f"no package by {name}"))
        split_tree(into)
        return ("linux-headers-x", "linux-kbuild-x")

    def fetch(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        return self._ask("fetch", into)

    def from_folder(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        return self._ask("from_folder", into)

    def from_archive(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        return self._ask("from_archive", into)


def asking(tool: Tool, node: Path, archive: str = "https://archive.example a b") -> PackageSource:
    """A source of packages with a folder of the user's that is there."""
    (node / "drivers/packages").mkdir(parents=True, exist_ok=True)
    sources = Sources(CertificatePlace(Path("/x"), ()), archive=archive, root=node)
    return lambda release, scratch: Packages(tool, HeaderPackages(f"linux-headers-{release}", re.compile("")), sources)


@pytest.mark.parametrize(
    ("has", "asked", "place"),
    [
        ("from_folder", ["from_folder"], "PACKAGES_DIR=/drivers/packages"),
        ("fetch", ["from_folder", "fetch"], "the repositories"),
        ("from_archive", ["from_folder", "fetch", "from_archive"], "ARCHIVE_URL"),
    ],
)
def test_a_place_is_asked_only_where_those_before_have_nothing(
    node: Path, scratch: Path, runner: Runner, log: Log, has: str, asked: list[str], place: str
) -> None:
    tool = Tool(has)
    found = find(node, scratch, runner, log, asking(tool, node))
    assert tool.calls == asked and found.origin is Origin.PACKAGES
    assert found.place == f"packages linux-headers-x, linux-kbuild-x of {place}"
    assert found.source_dir.is_relative_to(scratch) and found.source_dir.parts[-3:] == tuple(COMMON.split("/"))


@pytest.mark.parametrize("beside", [{}, {"lib/other": ""}], ids=["alone", "beside another that has lib"])
def test_packages_that_know_usr_lib_alone_serve_too(
    node: Path, scratch: Path, runner: Runner, log: Log, beside: dict[str, str]
) -> None:
    class Merged(Tool):
        def fetch(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
            names = super().fetch(wanted, into)
            (into / "lib").unlink()
            make_tree(into, beside)
            return names

    assert find(node, scratch, runner, log, asking(Merged("fetch"), node)).origin is Origin.PACKAGES


def test_the_host_serves_before_any_package_is_thought_of(node: Path, scratch: Path, runner: Runner, log: Log) -> None:
    split_tree(node)
    tool = Tool("fetch")
    find(node, scratch, runner, log, asking(tool, node))
    assert tool.calls == []


def test_headers_that_are_nowhere_are_told_with_every_place(
    node: Path, scratch: Path, runner: Runner, log: Log
) -> None:
    make_tree(node, {"proc/sys/kernel/osrelease": RELEASE})
    with pytest.raises(DriverError) as raised:
        find(node, scratch, runner, log, asking(Tool(), node, archive=""))
    assert raised.value.code is Code.HEADERS_MISSING and "ARCHIVE_URL" in raised.value.remedy
    told = raised.value.message
    places = (
        "our own root: /lib/modules",
        "PACKAGES_DIR=/drivers/packages: no package by from_folder",
        "/sys/kernel/kheaders.tar.xz: the kernel has none",
        "repositories: no package by fetch",
        "ARCHIVE_URL: it is not set",
    )
    positions = [told.find(place) for place in places]
    assert -1 not in positions and positions == sorted(positions), told
    (node / "drivers/packages").rmdir()
    source = asking(Tool(), node)
    (node / "drivers/packages").rmdir()
    with pytest.raises(DriverError, match="PACKAGES_DIR=/drivers/packages: there is no such folder"):
        find(node, scratch, runner, log, source)


def test_where_a_package_tool_failed_its_error_is_the_one_told_and_the_rest_is_asked(
    node: Path, scratch: Path, runner: Runner, log: Log
) -> None:
    untrusted = DriverError(Code.PACKAGES_UNTRUSTED, "the index is not signed", "Sign it")
    tool = Tool(fails={"fetch": untrusted})
    with pytest.raises(DriverError, match="repositories: the index is not signed; ARCHIVE_URL: no package") as raised:
        find(node, scratch, runner, log, asking(tool, node))
    assert raised.value.code is Code.PACKAGES_UNTRUSTED
    assert raised.value.remedy.startswith("Sign it. Or: Install the headers on the host")
    assert find(node, scratch, runner, log, asking(Tool("from_archive", {"fetch": untrusted}), node))


def test_a_full_disk_ends_the_search(node: Path, scratch: Path, runner: Runner, log: Log) -> None:
    tool = Tool("fetch", {"from_folder": DriverError(Code.NO_SPACE, "full")})
    with pytest.raises(DriverError, match="full"):
        find(node, scratch, runner, log, asking(tool, node))
    assert tool.calls == ["from_folder"]


@pytest.mark.parametrize(
    "words",
    [
        "echo './fixdep: error while loading shared libraries: libelf.so.1: cannot open' >&2; exit 127",
        'echo "fixdep: /lib/libc.so.6: version \\`GLIBC_2.38\' not found (required by fixdep)" >&2; exit 1',
    ],
)
def test_tools_of_another_c_library_are_refused(
    node: Path, scratch: Path, runner: Runner, log: Log, words: str
) -> None:
    split_tree(node, words)
    with pytest.raises(DriverError, match="scripts/basic/fixdep does not run here"):
        find(node, scratch, runner, log)


def test_headers_of_another_kernel_are_refused(node: Path, scratch: Path, runner: Runner, log: Log) -> None:
    split_tree(node)
    (node / FLAVOUR / "include/generated/utsrelease.h").write_text('#define UTS_RELEASE "6.1.0-55-amd64"\n')
    with pytest.raises(DriverError, match=r"belongs to kernel 6\.1\.0-55-amd64"):
        find(node, scratch, runner, log)


def test_a_mount_without_the_tools_names_what_is_missing(node: Path, scratch: Path, runner: Runner, log: Log) -> None:
    split_tree(node)
    (node / KBUILD).rename(node / "elsewhere")
    with pytest.raises(DriverError, match=r"usr/lib/linux-kbuild-6\.1: No such file"):
        find(node, scratch, runner, log)
