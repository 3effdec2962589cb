"""Calling apt: a fake apt that is really executed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.packages.apt import Apt
from driverctr.run import Runner
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_apt import HEADERS, NAMES, PACKAGE, VERSION, add, apt, failing, pauses, root, words
from tests.unit.stored import said

__all__ = ["add", "apt", "pauses", "root"]


def asked(apt: Apt) -> list[list[str]]:
    """The sources of each round."""
    rounds = sorted((apt.scratch / "repositories").glob("round-*"))
    return [[file.read_text().strip() for file in sorted(each.iterdir())] for each in rounds]


def test_only_header_packages_are_fetched_by_their_versions(
    tmp_path: Path, fake_bin: FakeBin, apt: Apt, add: Callable[..., None]
) -> None:
    add()
    assert apt.fetch(HEADERS, tmp_path / "into") == NAMES
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == sorted(
        f"{name}_{VERSION}_all.deb" for name in NAMES
    )
    assert f"apt-get -q download {' '.join(f'{name}={VERSION}' for name in NAMES)}" in words(fake_bin)
    calls = [call for call in fake_bin.calls if call.startswith("apt")]
    place = apt.scratch / "repositories"
    for option in (f"Dir::State::Lists={place}/lists", f"Dir::State::status={place}/status"):
        assert all(option in call for call in calls)
    assert all("Acquire::AllowInsecureRepositories=false" in call for call in calls)
    assert not any("Check-Valid-Until" in call for call in calls) and (place / "status").read_text() == ""


def test_the_large_index_is_not_fetched_where_a_small_one_has_the_packages(
    tmp_path: Path, apt: Apt, add: Callable[..., None]
) -> None:
    add(has="*stable-security*")
    apt.fetch(HEADERS, tmp_path / "into")
    assert asked(apt) == [
        [
            "deb [target=Packages] http://mirror.example/debian stable-updates main",
            "deb [target=Packages] http://mirror.example/security stable-security main",
        ]
    ]


def test_all_is_asked_in_rounds_before_a_package_is_said_to_be_nowhere(
    tmp_path: Path, apt: Apt, add: Callable[..., None], pauses: list[float]
) -> None:
    add(has="nothing")
    with pytest.raises(DriverError, match=f"there is no package {PACKAGE}") as raised:
        apt.fetch(HEADERS, tmp_path / "into")
    assert raised.value.code is Code.HEADERS_MISSING and pauses == []
    assert [len(each) for each in asked(apt)] == [2, 1, 2] and "universe" in asked(apt)[2][0]


def test_the_users_repository_is_asked_first_and_alone_where_that_is_wished(
    tmp_path: Path, root: Path, apt: Apt, add: Callable[..., None], fake_bin: FakeBin
) -> None:
    stanza = (
        "# mine\nTypes: deb deb-src\nURIs: http://own.example\nSuites: a b\nComponents: main\nSigned-By:\n .\n key\n"
    )
    make_tree(root, {"etc/apt/sources.list.d/own.sources": f"{stanza}\nEnabled: no\nTypes: deb\nSuites: c\n"})
    add(has="*own.example*")
    apt.fetch(HEADERS, tmp_path / "into")
    head = "Types: deb\nTargets: Packages\nSuites: {}\nComponents: main\nURIs: http://own.example\nSigned-By:\n .\n key"
    assert asked(apt) == [[head.format("a"), head.format("b")]]
    add(has="*mirror.example*")
    apt.fetch(HEADERS, tmp_path / "again")
    without = replace(apt, sources=replace(apt.sources, defaults=False), scratch=tmp_path / "apt-2")
    with pytest.raises(DriverError, match="there is no package"):
        without.fetch(HEADERS, tmp_path / "third")
    assert len(asked(without)) == 1


@pytest.mark.parametrize("place", ["sources.list", ""])
def test_a_default_file_over_which_a_users_is_mounted_is_the_users(
    tmp_path: Path, root: Path, apt: Apt, add: Callable[..., None], place: str
) -> None:
    add()
    without = replace(apt, sources=replace(apt.sources, defaults=False))
    with pytest.raises(DriverError, match="DEFAULT_REPOSITORIES=false, and there is no other package source"):
        without.fetch(HEADERS, tmp_path / "into")
    mounts = f"1 0 0:1 / / rw - ext4 / rw\n2 1 0:2 /x {root / 'etc/apt' / place} rw - ext4 / rw\n"
    make_tree(root, {"proc/self/mountinfo": mounts})
    assert without.fetch(HEADERS, tmp_path / "into") == NAMES


def test_repositories_cannot_be_left_out_where_the_image_does_not_tell_which(
    tmp_path: Path, root: Path, apt: Apt, add: Callable[..., None], fake_bin: FakeBin
) -> None:
    add()
    (root / "usr/share/driverctr/default-repositories").unlink()
    with pytest.raises(DriverError, match="default-repositories is missing or empty"):
        replace(apt, sources=replace(apt.sources, defaults=False)).fetch(HEADERS, tmp_path / "into")
    assert fake_bin.calls == []


def test_one_repository_that_fails_is_no_reason_not_to_ask_another(
    tmp_path: Path, root: Path, apt: Apt, add: Callable[..., None], log: Log
) -> None:
    make_tree(root, {"etc/apt/sources.list.d/own.list": "deb http://own.example stable main\n"})
    down = "E: Failed to fetch http://own.example/dists/stable/InRelease  Could not resolve 'own.example'"
    add(has="*mirror.example*", update=f'case "$parts" in *round-0) {failing(down)} ;; esac')
    assert apt.fetch(HEADERS, tmp_path / "into") == NAMES
    assert "Could not resolve 'own.example'" in said(log)


def test_the_version_of_the_kernel_is_sought_and_another_one_is_said(
    tmp_path: Path, apt: Apt, add: Callable[..., None], log: Log
) -> None:
    add()
    replace(apt, version=VERSION, scratch=tmp_path / "one").fetch(HEADERS, tmp_path / "into")
    assert "is there in version" not in said(log)
    apt = replace(apt, version="6.1.192-3")
    apt.fetch(HEADERS, tmp_path / "into")
    assert f"{PACKAGE} is there in version {VERSION}, not 6.1.192-3" in said(log) and len(asked(apt)) == 3


def test_proxies_in_capitals_reach_apt_too(tmp_path: Path, apt: Apt, add: Callable[..., None], runner: Runner) -> None:
    environment = {**runner.environment, "HTTPS_PROXY": "http://proxy.example", "http_proxy": "a", "HTTP_PROXY": "b"}
    add(update=f'echo "$https_proxy $http_proxy" > {tmp_path}/proxies')
    replace(apt, runner=replace(runner, environment=environment)).fetch(HEADERS, tmp_path / "into")
    assert (tmp_path / "proxies").read_text() == "http://proxy.example a\n"


def test_the_users_certificates_are_trusted_before_the_network_is_asked(
    tmp_path: Path, fake_bin: FakeBin, root: Path, apt: Apt, add: Callable[..., None], log: Log
) -> None:
    add()
    fake_bin.add("update-ca-certificates", "echo 'openssl: not found' >&2; exit 1")
    make_tree(root, {"usr/local/share/ca-certificates/README": ""})
    apt.fetch(HEADERS, tmp_path / "into")
    assert "update-ca-certificates" not in fake_bin.calls
    make_tree(root, {"usr/local/share/ca-certificates/..data/own.crt": ""})
    apt.fetch(HEADERS, tmp_path / "again")
    told = words(fake_bin)
    assert told.index("update-ca-certificates") < len(told) - 1 - told[::-1].index("apt-get -q update")
    assert "could not be added: openssl: not found" in said(log)


@pytest.mark.parametrize("prefix", ["", "deb ", "deb [signed-by=/keys/a.asc] "])
def test_only_the_archive_may_be_past_its_date(
    tmp_path: Path, apt: Apt, add: Callable[..., None], fake_bin: FakeBin, prefix: str
) -> None:
    add()
    archive = replace(apt, sources=replace(apt.sources, archive=f"{prefix}https://snapshot.example/d stable main"))
    assert archive.from_archive(HEADERS, tmp_path / "into") == NAMES
    calls = [call for call in fake_bin.calls if call.startswith("apt")]
    assert all("Acquire::Check-Valid-Until=false" in call and "AllowUnauthenticated=false" in call for call in calls)
    written = (apt.scratch / "archive/round-0/000.list").read_text()
    assert written.endswith("target=Packages] https://snapshot.example/d stable main\n")


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        ("https://user:secret@snapshot.example/debian", "is no package source"),
        ("deb [trusted=yes] https://user:secret@snapshot.example/debian stable main", "signatures unchecked"),
        ("deb [allow-insecure=yes] https://user:secret@snapshot.example/debian stable main", "signatures unchecked"),
    ],
)
def test_an_archive_that_cannot_be_one_is_refused(
    tmp_path: Path, apt: Apt, fake_bin: FakeBin, archive: str, told: str
) -> None:
    with pytest.raises(DriverError, match=told) as raised:
        replace(apt, sources=replace(apt.sources, archive=archive)).from_archive(HEADERS, tmp_path / "into")
    assert raised.value.code is Code.BAD_SETTING and "secret" not in str(raised.value) and fake_bin.calls == []
