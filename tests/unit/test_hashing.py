"""Digests begun early: the same as those computed when asked for, and never those of a file that was changed since."""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from driverctr import hashing
from driverctr.errors import DriverError
from driverctr.hashing import Hashes, Task, begin_early
from driverctr.modules import elf, read_manifest
from tests.unit.conftest import make_tree

RELEASE = os.uname().release
SET = f"modules/{RELEASE}/535.1-open"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def begun(hashes: Hashes) -> dict[str, str | None]:
    """What was hashed early, by name, once it is done."""
    for thread in threading.enumerate():
        if thread.name == "hashing":
            thread.join()
    return {Path(name).name: task.digest for name, task in hashes._tasks.items()}


def test_a_file_is_hashed_whole_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "PIECE", 4096)
    text = "0123456789abcdef" * 1000
    make_tree(tmp_path, {"a": text, "b": ""})
    runs: list[str] = []
    original = Task.run

    def run(task: Task) -> None:
        runs.append(task.file)
        original(task)

    monkeypatch.setattr(Task, "run", run)
    hashes = Hashes()
    hashes.begin([tmp_path / "a", tmp_path / "b"])
    hashes.begin([tmp_path / "a"])
    assert [hashes.of(tmp_path / name) for name in "aab"] == [digest(text), digest(text), digest("")]
    assert runs == [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_changed_since_is_hashed_anew(tmp_path: Path, replaced: bool) -> None:
    make_tree(tmp_path, {"a": "one", "new": "two"})
    hashes = Hashes()
    hashes.begin([tmp_path / "a"])
    assert begun(hashes) == {"a": digest("one")}
    if replaced:
        (tmp_path / "new").rename(tmp_path / "a")
    else:
        (tmp_path / "a").write_text("two")
    assert hashes.of(tmp_path / "a") == digest("two")


def test_a_file_that_cannot_be_read_is_told_to_who_asks(tmp_path: Path) -> None:
    hashes = Hashes()
    hashes.begin([tmp_path / "missing"])
    with pytest.raises(FileNotFoundError):
        hashes.of(tmp_path / "missing")


@pytest.mark.parametrize(
    ("more", "version", "expected"),
    [
        ({}, "535.1", ("nvidia.ko", "nvidia-uvm.ko", "nvidia-modeset.ko")),
        ({}, "", ("nvidia.ko", "nvidia-uvm.ko", "nvidia-modeset.ko")),
        ({}, "550.1", ()),
        ({f"modules/{RELEASE}/535.1-proprietary/nvidia.ko": "y"}, "535.1", ()),
        (
            {f"modules/{RELEASE}/550.1-open/nvidia.ko": "y"},
            "535.1",
            ("nvidia.ko", "nvidia-uvm.ko", "nvidia-modeset.ko"),
        ),
        ({"sys/module/nvidia/refcnt": "0"}, "535.1", ()),
    ],
)
def test_a_start_begins_with_the_only_set_that_fits_where_nothing_is_loaded(
    tmp_path: Path, more: dict[str, str], version: str, expected: tuple[str, ...]
) -> None:
    make_tree(tmp_path, {f"{SET}/nvidia.ko": "x", f"{SET}/manifest.json": "{}", **more})
    hashes = begin_early(
        {"MODULES_DIR": str(tmp_path / "modules"), "DRIVER_VERSION": version, "STORE_DIR": "/none"}, str(tmp_path)
    )
    assert tuple(begun(hashes)) == expected
    if expected:
        assert hashes.of(tmp_path / SET / "nvidia.ko") == digest("x")


def test_an_entry_of_the_store_for_this_very_kernel_comes_before_what_is_on_disk(tmp_path: Path) -> None:
    kernel = os.uname()
    key = json.dumps({"driver_version": "535.1", "kernel_release": kernel.release, "kernel_version": kernel.version})
    make_tree(
        tmp_path,
        {
            f"{SET}/nvidia.ko": "x",
            "store/entries/aa/key.json": key,
            "store/entries/aa/nvidia.ko": "x",
            "store/entries/bb/key.json": key.replace(kernel.version, "#99"),
        },
    )
    places = {"MODULES_DIR": str(tmp_path / "modules"), "STORE_DIR": str(tmp_path / "store")}

    def folders(version: str) -> set[str]:
        hashes = begin_early({**places, "DRIVER_VERSION": version}, str(tmp_path))
        return {Path(file).parent.name for file in hashes._tasks}

    assert folders("535.1") == folders("") == {"aa"}
    (tmp_path / "store/entries/cc").mkdir()
    make_tree(tmp_path, {"store/entries/cc/key.json": key.replace("535.1", "550.1")})
    assert folders("535.1") == {"aa"}
    assert folders("") == set()


def test_a_version_that_is_no_text_fits_nothing(tmp_path: Path) -> None:
    make_tree(tmp_path, {"store/entries/aa/key.json": "{}"})
    environment = {"DRIVER_VERSION": os.fsdecode(b"caf\351"), "STORE_DIR": str(tmp_path / "store")}
    assert not begin_early({**environment, "MODULES_DIR": str(tmp_path)}, str(tmp_path))._tasks


def test_a_folder_that_is_not_there_is_no_matter(tmp_path: Path) -> None:
    assert begun(begin_early({"MODULES_DIR": str(tmp_path / "none")}, str(tmp_path))) == {}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_might_never_end_is_not_hashed_and_keeps_nobody_waiting(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / SET
    make_tree(folder, {"nvidia-uvm.ko": "x"})
    make: dict[str, Callable[[Path], object]] = {
        "fifo": os.mkfifo,
        "folder": os.mkdir,
        "device": lambda path: path.symlink_to("/dev/zero"),
    }
    make[kind](folder / "nvidia.ko")
    environment = {"MODULES_DIR": str(tmp_path / "modules"), "STORE_DIR": str(tmp_path / "store")}
    assert begun(begin_early(environment, str(tmp_path)))["nvidia.ko"] is None
    with pytest.raises(OSError, match=r"regular file|directory"):
        Hashes().of(folder / "nvidia.ko")


@pytest.mark.timeout(20)
def test_nor_is_its_description_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(DriverError, match=r"manifest\.json: is not a regular file"):
        read_manifest(tmp_path)
    os.mkfifo(tmp_path / "nvidia.ko")
    with pytest.raises(OSError, match="regular file"):
        elf.read(tmp_path / "nvidia.ko")
