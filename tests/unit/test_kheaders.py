"""The kernel's own archive of headers: used where a build can, else refused with what lacks."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.headers import Headers, HeaderSearch, Origin
from driverctr.log import Log
from driverctr.run import Runner
from tests.unit.conftest import make_tree
from tests.unit.test_headers import GENERATED, RELEASE

HEADERS_ONLY = {name: text or "" for name, text in GENERATED.items() if name.endswith(".h")}
COMPLETE = {
    **{name: text or "" for name, text in GENERATED.items() if name not in ("vmlinux", "Module.symvers")},
    "Makefile": "# Kbuild's own\n",
    "scripts/Makefile.build": "",
    "scripts/basic/fixdep": "#!/bin/sh\nexit 1\n",
    "scripts/mod/modpost": "#!/bin/sh\nexit 1\n",
}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A root with nothing but the kernel's word for its release."""
    make_tree(tmp_path / "node", {"proc/sys/kernel/osrelease": RELEASE})
    return tmp_path / "node"


def offer(node: Path, files: Mapping[str, str]) -> None:
    """Have the kernel offer an archive."""
    file = node / "sys/kernel/kheaders.tar.xz"
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:xz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))


def find(node: Path, tmp_path: Path, runner: Runner, log: Log, release: str = RELEASE) -> Headers:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return HeaderSearch(runner, log, scratch, None, node).find(release)


def refusal(node: Path, tmp_path: Path, runner: Runner, log: Log, release: str = RELEASE) -> str:
    with pytest.raises(DriverError) as raised:
        find(node, tmp_path, runner, log, release)
    assert raised.value.code is Code.HEADERS_MISSING
    return raised.value.message.partition("/sys/kernel/kheaders.tar.xz: ")[2]


def test_header_files_alone_are_refused_with_all_that_lacks(
    node: Path, tmp_path: Path, runner: Runner, log: Log
) -> None:
    offer(node, HEADERS_ONLY)
    told = refusal(node, tmp_path, runner, log)
    lacking = "Makefile, scripts/Makefile.build, scripts/basic/fixdep, scripts/mod/modpost, include/config/auto.conf"
    assert told == f"it holds {len(HEADERS_ONLY)} files, and of what Kbuild needs it lacks {lacking}"


def test_a_complete_archive_of_a_kernel_without_versions_serves(
    node: Path, tmp_path: Path, runner: Runner, log: Log
) -> None:
    offer(node, COMPLETE)
    found = find(node, tmp_path, runner, log)
    assert (found.origin, found.place) == (Origin.KERNEL, "/sys/kernel/kheaders.tar.xz")
    assert found.build_dir == found.source_dir == tmp_path / "scratch/kheaders"


@pytest.mark.parametrize("place", [f"lib/modules/{RELEASE}/symvers.gz", f"boot/symvers-{RELEASE}.gz"])
def test_versions_of_symbols_come_from_the_host_or_it_is_refused(
    node: Path, tmp_path: Path, runner: Runner, log: Log, place: str
) -> None:
    config = "include/config/auto.conf"
    offer(node, {**COMPLETE, config: COMPLETE[config] + "CONFIG_MODVERSIONS=y\n"})
    assert "it lacks Module.symvers, without which no module fits" in refusal(node, tmp_path, runner, log)
    (tmp_path / "scratch/kheaders").rename(tmp_path / "first")
    make_tree(node, {place: ""})
    (node / place).write_bytes(gzip.compress(b"0x1 a vmlinux EXPORT_SYMBOL\n"))
    found = find(node, tmp_path, runner, log)
    assert (found.build_dir / "Module.symvers").read_text() == "0x1 a vmlinux EXPORT_SYMBOL\n"


def test_why_there_is_no_archive(node: Path, tmp_path: Path, runner: Runner, log: Log) -> None:
    assert "the kernel has none (it was built without CONFIG_IKHEADERS)" in refusal(node, tmp_path, runner, log)
    make_tree(node, {f"lib/modules/{RELEASE}/kernel/kernel/kheaders.ko.xz": ""})
    assert "run `modprobe kheaders` on the host" in refusal(node, tmp_path, runner, log)
    assert f"it is of the kernel that runs, {RELEASE}" in refusal(node, tmp_path, runner, log, "6.1.0-57-amd64")


def test_a_damaged_archive_is_refused(node: Path, tmp_path: Path, runner: Runner, log: Log) -> None:
    offer(node, COMPLETE)
    file = node / "sys/kernel/kheaders.tar.xz"
    file.write_bytes(file.read_bytes()[:200])
    assert "it cannot be unpacked" in refusal(node, tmp_path, runner, log)
