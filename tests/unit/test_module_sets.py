"""Sets of modules on disk: found by their manifest, believed only after each file was compared with it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.modules import ModuleSet, Wish, describe, elf, write_manifest
from driverctr.modules.ondisk import OnDisk, set_folder, verify
from tests.unit.module_files import module_bytes, write_module

RELEASE = "6.1.0-56-amd64"
WISH = Wish(RELEASE, "535.309.01", "proprietary")


@pytest.fixture
def made(tmp_path: Path) -> ModuleSet:
    """A set of two modules where it belongs."""
    folder = set_folder(tmp_path, WISH)
    files = {name: describe(write_module(folder / f"{name}.ko", RELEASE)) for name in ("nvidia", "nvidia-uvm")}
    found = ModuleSet(folder, RELEASE, "", "535.309.01", "proprietary", files)
    write_manifest(found)
    return found


def test_a_set_is_found_and_each_file_compared(made: ModuleSet, tmp_path: Path) -> None:
    beside: list[str] = []
    found = OnDisk(tmp_path).find(WISH)
    verify(found, meanwhile=lambda: beside.append("done"))
    assert found == made and beside == ["done"]


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_file_is_named(made: ModuleSet, tmp_path: Path, damage: str) -> None:
    file = made.modules["nvidia-uvm"].file
    match damage:
        case "changed":
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        case "cut":
            file.write_bytes(file.read_bytes()[:100])
        case "gone":
            file.unlink()
    with pytest.raises(DriverError, match=r"nvidia-uvm\.ko") as refused:
        verify(OnDisk(tmp_path).find(WISH), meanwhile=lambda: None)
    assert refused.value.code is Code.NO_MODULES


def test_a_set_of_another_kernel_is_refused_before_any_file_is_read(made: ModuleSet, tmp_path: Path) -> None:
    other = replace(WISH, kernel_release="6.12.0")
    shutil.copytree(made.folder, set_folder(tmp_path, other))
    with pytest.raises(DriverError, match=r"says kernel_release 6\.1\.0-56-amd64"):
        OnDisk(tmp_path).find(other)


def test_parameters_are_read_from_the_file_itself(tmp_path: Path) -> None:
    file = tmp_path / "x.ko"
    file.write_bytes(module_bytes({"version": "1"}, parameters={"NVreg_A": "int", "hidden": "charp"}))
    assert elf.read(file).parameters.keys() == {"NVreg_A", "hidden"}
