"""Failures of apt, each in the words of a real one (2.6.1)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.packages.apt import Apt
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_apt import COMMON, HEADERS, REPOSITORY, VERSION, add, apt, failing, pauses, root, words

__all__ = ["add", "apt", "pauses", "root"]

GPG = f"W: GPG error: {REPOSITORY} InRelease: "
NOT_SIGNED = f"\nE: The repository '{REPOSITORY} InRelease' is not signed."
SOME = "\nE: Some index files failed to download. They have been ignored, or old ones used instead."
INDEX = "http://mirror.example/debian/dists/stable"


@pytest.mark.parametrize(
    ("told", "code", "says", "again"),
    [
        (
            f"{GPG}The following signatures couldn't be verified because the public key is not available: NO_PUBKEY "
            f"2774B84E5BE1FC27{NOT_SIGNED}",
            Code.PACKAGES_UNTRUSTED,
            f"{REPOSITORY} is signed with the key 2774B84E5BE1FC27, which is not trusted here",
            False,
        ),
        (
            f"{GPG}The following signatures were invalid: EXPKEYSIG EB7C156FA93F2D9B good{NOT_SIGNED}",
            Code.PACKAGES_UNTRUSTED,
            "whose time is over",
            False,
        ),
        (
            f"{GPG}The following signatures were invalid: BADSIG EB7C156FA93F2D9B good{NOT_SIGNED}",
            Code.PACKAGES_UNTRUSTED,
            "its index was changed after it was signed",
            False,
        ),
        (
            f"E: The repository '{REPOSITORY} Release' is not signed.",
            Code.PACKAGES_UNTRUSTED,
            f"{REPOSITORY} is not signed",
            False,
        ),
        (
            f"E: Release file for {INDEX}/InRelease is expired (invalid since 2d 0h 0min 52s). Updates for this "
            "repository will not be applied.",
            Code.PACKAGES_UNTRUSTED,
            f"the index {INDEX}/InRelease is expired (invalid since 2d 0h 0min 52s)",
            False,
        ),
        (
            f"E: Failed to fetch {INDEX}/InRelease  Could not connect to mirror.example:80 (10.0.0.1). - connect (111: "
            f"Connection refused){SOME}",
            Code.PACKAGES_FAILED,
            f"{INDEX}/InRelease cannot be fetched",
            True,
        ),
        (
            f"E: The repository '{REPOSITORY} Release' does not have a Release file.",
            Code.PACKAGES_FAILED,
            f"there is no repository at {REPOSITORY}",
            False,
        ),
        (
            f"E: Failed to fetch {INDEX}/main/binary-amd64/Packages.xz  Hash Sum mismatch\n   Hashes of expected file:"
            f"\n    - Filesize:448 [weak]{SOME}",
            Code.PACKAGES_FAILED,
            "is not the file that the signed index lists",
            True,
        ),
        (
            f"E: Failed to fetch {INDEX}/InRelease  401  Unauthorized [IP: 10.0.0.1 80]{NOT_SIGNED}",
            Code.PACKAGES_FAILED,
            "was refused: 401",
            False,
        ),
        (
            f"E: Failed to fetch {INDEX}/InRelease  503  Service Unavailable [IP: 10.0.0.1 80]{NOT_SIGNED}",
            Code.PACKAGES_FAILED,
            "InRelease cannot be had: the server, or a proxy, answers 503  Service Unavailable",
            True,
        ),
        (
            "E: Could not get lock /x/lists/lock. It is held by process 10899 (python3)\nE: Unable to lock directory "
            "/x/lists/",
            Code.PACKAGES_FAILED,
            "apt's files are locked by another process",
            True,
        ),
        (
            "E: Unable to parse package file /x/status (1)\nE: The package cache file is corrupted",
            Code.PACKAGES_FAILED,
            "apt's database is damaged",
            False,
        ),
        (
            f"E: Failed to fetch {INDEX}/main/binary-amd64/Packages  Error writing to file - write (28: No space left "
            f"on device) [IP: 10.0.0.1 80]{SOME}",
            Code.NO_SPACE,
            "no space is left",
            False,
        ),
        ("E: Something that nobody has met", Code.PACKAGES_FAILED, "failed: E: Something that nobody has met", True),
    ],
)
def test_each_failure_of_an_index_is_told_apart_in_apts_own_words(
    tmp_path: Path,
    apt: Apt,
    add: Callable[..., None],
    pauses: list[float],
    told: str,
    code: Code,
    says: str,
    again: bool,
) -> None:
    add(has="nothing", update=failing(told))
    one = replace(apt, sources=replace(apt.sources, archive=REPOSITORY + " main"))
    with pytest.raises(DriverError) as raised:
        one.from_archive(HEADERS, tmp_path / "into")
    assert raised.value.code is code and raised.value.remedy
    assert says in raised.value.message and told.splitlines()[0] in raised.value.message
    assert "Some index files" not in raised.value.message
    assert len(pauses) == (2 if again else 0) and (not again or pauses[1] > pauses[0])


def test_an_index_newer_than_the_pool_is_fetched_anew_before_the_next_attempt(
    tmp_path: Path, apt: Apt, add: Callable[..., None], pauses: list[float], fake_bin: FakeBin
) -> None:
    file = f"http://mirror.example/debian/pool/{COMMON}_{VERSION}_all.deb"
    add(download=failing(f"E: Failed to fetch {file}  404  Not Found [IP: 10.0.0.1 80]"))
    with pytest.raises(DriverError) as raised:
        apt.fetch(HEADERS, tmp_path / "into")
    assert raised.value.code is Code.PACKAGES_FAILED and "The mirror is being updated" in raised.value.remedy
    assert raised.value.message.startswith(f"{file} is listed in the index and gone from the repository; `apt-get")
    calls = [each.split(" ")[2] for each in words(fake_bin) if each.startswith("apt-get")]
    assert calls == ["update", "download", "update", "download", "update", "download"] and len(pauses) == 2


def test_a_source_that_is_no_source_is_named_by_the_users_own_file(
    tmp_path: Path, root: Path, apt: Apt, add: Callable[..., None]
) -> None:
    make_tree(root, {"etc/apt/sources.list.d/own.list": "dab http://own.example stable main\n"})
    parts = tmp_path / "apt/repositories/round-0"
    told = f"E: Type 'dab' is not known on line 1 in source list {parts}/000.list\n"
    told += "E: The list of sources could not be read."
    add(update=failing(told))
    with pytest.raises(DriverError) as raised:
        apt.fetch(HEADERS, tmp_path / "into")
    assert raised.value.code is Code.BAD_SETTING
    assert f"Type 'dab' is not known on {root}/etc/apt/sources.list.d/own.list" in raised.value.message


@pytest.mark.parametrize("password", ["secret", "p@secret"])
def test_credentials_are_in_no_error(tmp_path: Path, apt: Apt, add: Callable[..., None], password: str) -> None:
    told = f"E: Failed to fetch http://user:{password}@own.example/InRelease  Could not connect"
    add(has="nothing", update=failing(told))
    with pytest.raises(DriverError) as raised:
        apt.fetch(HEADERS, tmp_path / "into")
    assert "secret" not in str(raised.value) and "http://...@own.example" in raised.value.message
