"""Which package tool a distribution gets, and what Ubuntu Pro puts before it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import distros
from driverctr.distros import HeaderPackages
from driverctr.errors import Code, DriverError
from driverctr.facts.osrelease import OsRelease
from driverctr.log import Log
from driverctr.packages import PackageTool, Sources
from driverctr.packages.apt import Apt
from driverctr.packages.dnf import Dnf
from driverctr.packages.tools import tool_for
from driverctr.packages.ubuntupro import WithPro
from driverctr.run import Runner
from tests.unit.conftest import FakeBin
from tests.unit.test_headers import Tool
from tests.unit.test_ubuntupro import TOKEN, add_pro

WANTED = HeaderPackages("linux-headers-x", re.compile(""))


def tool_of(os_id: str, version_id: str, kernel: str, uname_v: str, runner: Runner, tmp_path: Path) -> PackageTool:
    distro = distros.of(OsRelease(os_id, version_id))
    identity = distro.identify(kernel, uname_v)
    sources = Sources(distro.certificates, root=tmp_path)
    repositories = distro.repositories(identity)
    return tool_for(
        distro,
        identity,
        repositories,
        sources,
        runner=runner,
        scratch=tmp_path,
        pause=print,
        log=Log(),
        pro_token=TOKEN,
    )


def test_each_distribution_has_its_tool(runner: Runner, tmp_path: Path) -> None:
    debian = tool_of("debian", "12", "6.1.0-56-amd64", "#1 SMP PREEMPT Debian 6.1.192-2 (2026-03-01)", runner, tmp_path)
    assert isinstance(debian, Apt) and debian.version == "6.1.192-2"
    assert isinstance(tool_of("rocky", "9.4", "5.14.0-427.13.1.el9_4.x86_64", "#1 SMP", runner, tmp_path), Dnf)
    assert isinstance(tool_of("ubuntu", "22.04", "5.15.0-105-generic", "#115-Ubuntu SMP", runner, tmp_path), Apt)
    fips = tool_of("ubuntu", "22.04", "5.15.0-105-fips", "#115-Ubuntu SMP", runner, tmp_path)
    assert isinstance(fips, WithPro) and fips.token == TOKEN and isinstance(fips.tool, Apt)


def test_the_subscription_is_held_only_while_its_repositories_are_asked(
    runner: Runner, fake_bin: FakeBin, tmp_path: Path
) -> None:
    add_pro(fake_bin)
    pro = WithPro(Tool("none"), runner, tmp_path / "tool", "5.15.0-105-fips", "fips-updates", TOKEN)
    with pytest.raises(DriverError, match="no package by fetch"):
        pro.fetch(WANTED, tmp_path / "into")
    assert [call.split()[1] for call in fake_bin.calls] == ["attach", "enable", "detach"]
    for ask in (pro.from_folder, pro.from_archive):
        with pytest.raises(DriverError, match=f"no package by {ask.__name__}"):
            ask(WANTED, tmp_path / "into")
    assert len(fake_bin.calls) == 3


def test_without_a_token_it_is_said_what_the_kernel_needs(runner: Runner, fake_bin: FakeBin, tmp_path: Path) -> None:
    pro = WithPro(Tool("none"), runner, tmp_path, "5.15.0-105-fips", "fips-updates", "")
    with pytest.raises(DriverError, match=r"Ubuntu Pro \(fips-updates\): set UBUNTU_PRO_TOKEN; no package") as raised:
        pro.fetch(WANTED, tmp_path / "into")
    assert raised.value.code is Code.HEADERS_MISSING and fake_bin.calls == []
    assert replace(pro, tool=Tool("fetch")).fetch(WANTED, tmp_path / "into")
