"""Calling apt: a fake apt that is really executed."""

import re
from io import StringIO
from pathlib import Path

import pytest

from driverctr import distros
from driverctr.errors import Code, DriverError
from driverctr.facts.osrelease import OsRelease
from driverctr.log import Log
from driverctr.packages.apt import Apt
from driverctr.run import Runner
from tests.unit.conftest import FakeBin, make_tree

DEPENDS = (
    "Depends: linux-headers-6.1.0-56-common (= 6.1.192-2), linux-kbuild-6.1 (>= 6.1.192-2), linux-compiler-gcc-12-x86"
)
HEADERS = distros.of(OsRelease("debian", "12")).header_packages("6.1.0-56-amd64")


def add_apt(fake_bin: FakeBin, scratch: Path, get: str = "") -> None:
    """apt-cache knows packages once an update has run; apt-get download leaves an archive per package."""
    known = f'[ -e {scratch}/updated ] || exit 100; echo "Package: x"; echo "{DEPENDS}"'
    fake_bin.add("apt-cache", known)
    download = 'while [ "$1" != download ]; do shift; done; shift; for name; do : > "$name.deb"; done'
    fake_bin.add("apt-get", get or f'case "$*" in *update*) : > {scratch}/updated ;; *) {download} ;; esac')
    fake_bin.add("dpkg-deb", 'mkdir -p "$3"; : > "$3/${2##*/}"')


def words(fake_bin: FakeBin) -> list[str]:
    """The calls without apt's options."""
    return [re.sub(r" -o \S+", "", call) for call in fake_bin.calls]


@pytest.fixture
def pauses() -> list[float]:
    """How long was waited between attempts."""
    return []


@pytest.fixture
def apt(tmp_path: Path, runner: Runner, log: Log, pauses: list[float]) -> Apt:
    """apt with a scratch folder."""
    return Apt(runner, tmp_path / "apt", pauses.append, log, certificates=tmp_path / "certificates")


def test_only_header_packages_are_fetched(tmp_path: Path, fake_bin: FakeBin, apt: Apt) -> None:
    add_apt(fake_bin, apt.scratch)
    names = apt.fetch(HEADERS.package, HEADERS.companions, tmp_path / "into")
    assert names == ("linux-headers-6.1.0-56-amd64", "linux-headers-6.1.0-56-common", "linux-kbuild-6.1")
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == sorted(f"{name}.deb" for name in names)
    assert "apt-get -q update" in words(fake_bin)
    assert f"apt-get -q download {' '.join(names)}" in words(fake_bin)
    assert all(f"Dir::State::Lists={apt.scratch}/lists" in call for call in fake_bin.calls if call.startswith("apt"))


def test_known_packages_need_no_update(tmp_path: Path, fake_bin: FakeBin, apt: Apt) -> None:
    add_apt(fake_bin, apt.scratch)
    make_tree(apt.scratch, {"updated": ""})
    apt.fetch(HEADERS.package, HEADERS.companions, tmp_path / "into")
    assert "apt-get -q update" not in words(fake_bin)


def test_the_users_certificates_are_trusted_before_the_network_is_asked(
    tmp_path: Path, fake_bin: FakeBin, apt: Apt, log: Log
) -> None:
    add_apt(fake_bin, apt.scratch)
    fake_bin.add("update-ca-certificates", "echo 'openssl: not found' >&2; exit 1")
    make_tree(tmp_path, {"certificates/README": ""})
    apt.fetch(HEADERS.package, HEADERS.companions, tmp_path / "into")
    assert "update-ca-certificates" not in fake_bin.calls
    (apt.scratch / "updated").unlink()
    make_tree(tmp_path, {"certificates/..data/own.crt": ""})
    apt.fetch(HEADERS.package, HEADERS.companions, tmp_path / "again")
    told = words(fake_bin)
    assert told.index("update-ca-certificates") < len(told) - 1 - told[::-1].index("apt-get -q update")
    assert isinstance(log.stream, StringIO) and "could not be added: openssl: not found" in log.stream.getvalue()


def test_a_network_failure_is_tried_again_and_told_in_apt_words(
    tmp_path: Path, fake_bin: FakeBin, apt: Apt, pauses: list[float]
) -> None:
    add_apt(fake_bin, apt.scratch, "echo 'W: noise' >&2; echo 'E: Failed to fetch: Temporary failure' >&2; exit 100")
    with pytest.raises(DriverError) as raised:
        apt.fetch(HEADERS.package, HEADERS.companions, tmp_path / "into")
    assert raised.value.code is Code.PACKAGES_FAILED
    assert raised.value.message == "`apt-get -q update` failed: E: Failed to fetch: Temporary failure"
    assert len(pauses) == 2 and pauses[1] > pauses[0]


def test_a_package_that_does_not_exist_is_asked_for_once(
    tmp_path: Path, fake_bin: FakeBin, apt: Apt, pauses: list[float]
) -> None:
    add_apt(fake_bin, apt.scratch)
    fake_bin.add("apt-cache", "echo 'E: No packages found' >&2; exit 100")
    with pytest.raises(DriverError, match="No packages found"):
        apt.fetch(HEADERS.package, HEADERS.companions, tmp_path / "into")
    assert pauses == []


def test_newer_kernels_have_a_kbuild_package_of_their_own() -> None:
    companions = distros.of(OsRelease("debian", "12")).header_packages("6.12.117+deb12-amd64").companions
    fits = ("linux-kbuild-6.12.117+deb12", "linux-headers-6.12.117+deb12-common", "linux-headers-6.1.0-56-common-rt")
    assert all(companions.fullmatch(name) for name in fits)
    assert not companions.fullmatch("linux-image-6.12.117+deb12-amd64")
