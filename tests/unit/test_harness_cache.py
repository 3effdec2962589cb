"""The harness's cache: keyed by content, published whole or not at all."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from docker import DockerClient

from harness import cache, image, standin


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVERCTR_CACHE", str(tmp_path / "cache"))


def test_same_key_is_built_once() -> None:
    built: list[Path] = []

    def build(to: Path) -> None:
        built.append(to)
        (to / "file").write_text("x")

    first = cache.entry("kind", ["a", 1], build)
    assert cache.entry("kind", ["a", 1], build) == first
    assert cache.entry("kind", ["a", 2], build) != first
    assert len(built) == 2
    assert [path.name for path in first.iterdir()] == ["file"]


def test_failed_build_leaves_nothing_and_is_tried_afresh() -> None:
    def fail(to: Path) -> None:
        (to / "half").write_text("x")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.entry("kind", ["a"], fail)
    entry = cache.entry("kind", ["a"], lambda to: (to / "whole").touch())
    assert [path.name for path in entry.iterdir()] == ["whole"]


def test_a_path_in_a_key_means_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_text("1")
    before = cache.key([folder])
    assert cache.key([folder]) == before
    (folder / "a").chmod(0o755)
    executable = cache.key([folder])
    (folder / "a").rename(folder / "b")
    renamed = cache.key([folder])
    (folder / "b").write_text("2")
    assert len({before, executable, renamed, cache.key([folder])}) == 4


def test_parts_do_not_run_together() -> None:
    assert cache.key(["ab", "c"]) != cache.key(["a", "bc"])
    assert cache.key(["1"]) != cache.key([1])


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"e{number}").mkdir()
        os.utime(tmp_path / f"e{number}", (number, number))
    cache.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e3", "e4"]


def test_of_each_kind_of_image_the_newest_stay() -> None:
    removed: list[str] = []
    tags = [
        *(f"driverctr:535.1-{number:x}" for number in range(10, 16)),
        "driverctr:535.1-rhel-a0",
        "driverctr:535.1-nvidia",
    ]
    found = [SimpleNamespace(tags=[tag], attrs={"Created": f"2026-01-{day:02}"}) for day, tag in enumerate(tags, 1)]
    client = SimpleNamespace(images=SimpleNamespace(list=lambda: found, remove=removed.append))
    image.prune(cast(DockerClient, client), "driverctr:535.1-")
    assert removed == ["driverctr:535.1-c", "driverctr:535.1-b", "driverctr:535.1-a"]


def test_scenarios_run_on_the_newest_image_of_debian_that_can_build() -> None:
    described = (
        {"distribution": "debian"},
        {"distribution": "debian"},
        {"distribution": "rhel"},
        {"distribution": "debian", "kernel_release": "6.1.0-1-amd64"},
    )
    for age, document in enumerate(described):
        file = cache.root() / f"rootfs/{age:016x}/root/usr/share/driverctr/image.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(document))
        os.utime(file.parents[4], (age, age))
    assert standin.newest_root().parent.name == f"{1:016x}"
