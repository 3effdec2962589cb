"""Packages, or a repository, in a folder of the user's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.packages.apt import Apt
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_apt import COMMON, HEADERS, KBUILD, NAMES, PACKAGE, VERSION, add, apt, pauses, root, words
from tests.unit.stored import said

__all__ = ["add", "apt", "pauses", "root"]


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        ({"Release": ""}, ["./"]),
        ({"dists/stable/InRelease": "Suite: stable\nComponents: main other\n"}, ["stable main", "stable other"]),
        ({"dists/a/updates/Release": "", "dists/a/updates/main/binary-amd64/Release": ""}, ["a/updates main"]),
    ],
)
def test_a_repository_in_the_folder_is_asked_by_apt_and_verified(
    tmp_path: Path, root: Path, apt: Apt, add: Callable[..., None], files: dict[str, str], lines: list[str]
) -> None:
    make_tree(root, {f"drivers/packages/{name}": text for name, text in files.items()})
    add()
    assert apt.from_folder(HEADERS, tmp_path / "into") == NAMES
    written = [file.read_text() for file in sorted((apt.scratch / "folder/round-0").iterdir())]
    assert written == [f"deb [target=Packages] file:{root}/drivers/packages {line}\n" for line in lines]


def test_packages_in_the_folder_need_neither_index_nor_network(
    tmp_path: Path, root: Path, apt: Apt, fake_bin: FakeBin, log: Log
) -> None:
    add_debs(root, fake_bin)
    assert apt.from_folder(HEADERS, tmp_path / "into") == NAMES
    unpacked = [Path(call.split(" ")[2]).name for call in words(fake_bin) if "--extract" in call]
    wrong_version, native = f"{PACKAGE}_6.1.9-1_amd64.deb", f"{PACKAGE}_{VERSION}_amd64.deb"
    assert unpacked == [native, f"{COMMON}_{VERSION}_all.deb", f"{KBUILD}.deb"] and wrong_version not in unpacked
    assert not any(call.startswith("apt") for call in fake_bin.calls)
    assert "trusted as your own" in said(log)


def test_a_folder_without_the_package_and_a_damaged_one_are_told(
    tmp_path: Path, root: Path, apt: Apt, fake_bin: FakeBin
) -> None:
    make_tree(root, {"drivers/packages/README": ""})
    with pytest.raises(DriverError, match=r"there is no \*\.deb and no repository in .*/drivers/packages"):
        apt.from_folder(HEADERS, tmp_path / "into")
    add_debs(root, fake_bin)
    (root / f"drivers/packages/deep/{COMMON}_{VERSION}_all.deb").unlink()
    with pytest.raises(DriverError, match=f"there is no {COMMON} for amd64 among the packages") as raised:
        apt.from_folder(HEADERS, tmp_path / "into")
    assert raised.value.code is Code.HEADERS_MISSING
    make_tree(root, {f"drivers/packages/{COMMON}_1_all.deb": "damaged"})
    with pytest.raises(
        DriverError, match=f"{COMMON}_1_all.deb is damaged: dpkg-deb: error: .* not a Debian format"
    ) as raised:
        apt.from_folder(HEADERS, tmp_path / "into")
    assert raised.value.code is Code.PACKAGES_FAILED


def add_debs(root: Path, fake_bin: FakeBin) -> None:
    """Packages whose control files are their contents, one of them under a name of its own."""
    head = f"Package: {PACKAGE}\nDepends: {COMMON} (= {VERSION}), {KBUILD}, gcc\n"
    make_tree(
        root / "drivers/packages",
        {
            f"{PACKAGE}_6.1.9-1_amd64.deb": f"{head}Version: 6.1.9-1\nArchitecture: amd64\n",
            f"{PACKAGE}_{VERSION}_amd64.deb": f"{head}Version: {VERSION}\nArchitecture: amd64\n",
            f"{PACKAGE}_{VERSION}_arm64.deb": f"{head}Version: {VERSION}\nArchitecture: arm64\n",
            f"deep/{COMMON}_{VERSION}_all.deb": f"Package: {COMMON}\nVersion: {VERSION}\nArchitecture: all\n",
            f"{KBUILD}.deb": f"Package: {KBUILD}\nVersion: 1\nArchitecture: amd64\n",
        },
    )
    fake_bin.add(
        "dpkg",
        'case "$1" in --print-architecture) echo amd64 ;; *) [ "$2" = 6.1.192-2 ] && [ "$3" = gt ] ;; esac',
    )
    fake_bin.add(
        "dpkg-deb",
        'case "$1" in --extract) exit 0 ;; esac\n'
        'if [ "$(/bin/cat "$2")" = damaged ]; then\n'
        "echo \"dpkg-deb: error: '$2' is not a Debian format archive\" >&2; exit 2; fi\n"
        '/bin/cat "$2"',
    )
