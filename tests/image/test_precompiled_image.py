"""The image for one kernel: its modules as they were given, nothing to build with, and one word on any other kernel."""

from __future__ import annotations

import json
import os
from pathlib import Path

import docker
import pytest

from harness import containers, image, imagefiles, kernels, precompiled
from tests.image.test_image_container import COMMANDS

pytestmark = pytest.mark.image

LIMIT_S = 300
SAVED_LEAST_BYTES = 150_000_000


@pytest.fixture(scope="module")
def release() -> str:
    """Return the kernel of the virtual hosts."""
    return kernels.get().release


@pytest.fixture(scope="module")
def modules(release: str) -> Path:
    """Return the set that is baked in: NVIDIA's real modules, built once for all tests."""
    (found,) = image.real_modules(release).glob("*/*/manifest.json")
    return found.parent


@pytest.fixture(scope="module")
def built(release: str, modules: Path) -> str:
    """Return the image with them."""
    return precompiled.build(release, modules=modules)


@pytest.fixture(scope="module")
def root(built: str) -> Path:
    """Return its root file system."""
    return imagefiles.export_rootfs(built)


def test_it_has_the_tag_that_nodes_ask_for(client: docker.DockerClient, built: str, release: str) -> None:
    assert built == f"{image.REPOSITORY_NAME}:535-{release}-debian12" and built in client.images.get(built).tags


def test_the_modules_are_those_given_to_the_byte(root: Path, release: str, modules: Path) -> None:
    folder = root / f"opt/driverctr/modules/{release}/{image.DEFAULT_DRIVER}-proprietary"
    given = {file.name: file.read_bytes() for file in modules.glob("*.ko")}
    assert {file.name: file.read_bytes() for file in folder.glob("*.ko")} == given
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["kernel_release"] == release and len(manifest["modules"]) == len(given)


def test_it_says_which_kernel_it_is_for_and_keeps_the_digests_of_its_sources(root: Path, release: str) -> None:
    record = json.loads((root / "usr/share/driverctr/image.json").read_text())
    assert (record["kernel_release"], record["module_type"]) == (release, image.PROPRIETARY)
    assert len(record["sources"]) == 2
    assert not [path for folder in ("opt/driverctr/source", "usr/src") for path in (root / folder).rglob("*")]


def test_nothing_builds_in_it_and_all_that_neighbours_call_is_there(built: str) -> None:
    tools = "gcc cc make ld patch pahole"
    script = (
        f"for c in {' '.join(COMMANDS)}; do command -v $c >/dev/null || echo lacks $c; done; command -v {tools}; true"
    )
    assert containers.output(built, ["sh", "-c", script], LIMIT_S) == ""
    assert "not found" not in containers.output(built, ["ldd", "/usr/bin/nvidia-persistenced"], LIMIT_S)


def test_it_is_smaller_than_the_image_that_builds(client: docker.DockerClient, built: str, tag: str) -> None:
    sizes = [client.images.get(name).attrs["Size"] for name in (tag, built)]
    assert sizes[0] - sizes[1] > SAVED_LEAST_BYTES


def test_on_another_kernel_the_plan_says_which_image_would_do(built: str, release: str) -> None:
    made = json.loads(containers.output(built, ["driverctr", "plan", "--json"], LIMIT_S))
    (refused,) = [blocker for blocker in made["blockers"] if blocker["code"] == "wrong-kernel"]
    assert release in refused["message"] and os.uname().release in refused["message"]
    assert f"535-{os.uname().release}-debian12" in refused["remedy"]
