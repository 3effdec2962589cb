"""The images of Ubuntu and RHEL: what differs from Debian's, and that modules are built with their own packages."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest

from driverctr.hashing import sha256
from driverctr.userspace import image as described
from driverctr.userspace import listing
from harness import bases, containers, flavours, image, imagefiles, kernels, serving, vmhost
from harness.flavours import Flavour
from tests.image.conftest import Run, ran_in

pytestmark = pytest.mark.image

LIBRARIES = {"ubuntu": "usr/lib/x86_64-linux-gnu", "rhel": "usr/lib64"}
VERSIONS = {"ubuntu": "22.04", "rhel": "9.4"}
PROGRAMS = ("nvidia-smi", "nvidia-persistenced", "nvidia-modprobe", "nvidia-cuda-mps-control")
SONAMES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-cfg.so.1", "libnvidia-ptxjitcompiler.so.1")
COMMANDS = ("bash", "modprobe", "lsmod", "mount", "chroot", "ldconfig", "flock", "gcc", "make", "patch", "pahole")
SOURCE = f"/opt/driverctr/source/nvidia-{image.DEFAULT_DRIVER}/kernel"


@pytest.fixture(scope="module", params=["ubuntu", "rhel"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Return a flavour beside Debian."""
    return flavours.FLAVOURS[request.param]


@pytest.fixture(scope="module")
def tag(flavour: Flavour) -> str:
    """Return the tag of its image."""
    return image.build(flavour=flavour)


@pytest.fixture(scope="module")
def rootfs(tag: str) -> Path:
    """Return the folder with its root file system."""
    return imagefiles.export_rootfs(tag)


@pytest.fixture(scope="module")
def run(tag: str) -> Run:
    """Return a function that runs a command in a container of it, with no privilege at all."""
    return ran_in(tag)


def test_it_says_what_it_is(rootfs: Path, flavour: Flavour) -> None:
    record = json.loads((rootfs / described.DESCRIPTION).read_text())
    assert (record["distribution"], record["architecture"]) == (flavour.name, "amd64")
    assert record["distribution_version"] == VERSIONS[flavour.name]
    assert (record["origin"], record["driver_version"]) == (flavour.origin, image.DEFAULT_DRIVER)
    known = described.read(rootfs)
    assert all(source.path.is_dir() for source in known.sources)


def test_labels_entry_and_environment(client: docker.DockerClient, tag: str, flavour: Flavour) -> None:
    config = client.images.get(tag).attrs["Config"]
    version = config["Labels"]["org.opencontainers.image.version"]
    assert version.endswith(f"-{image.DEFAULT_DRIVER}-{flavour.os_tag}-test")
    assert config["Entrypoint"] == ["nvidia-driver", "init"] and not config["Cmd"]
    assert {"NVIDIA_VISIBLE_DEVICES=void", f"DRIVER_VERSION={image.DEFAULT_DRIVER}"} <= set(config["Env"])


def test_the_launcher_has_an_interpreter_of_its_own_name(rootfs: Path, flavour: Flavour) -> None:
    assert str((rootfs / "usr/libexec/driverctr/python3").readlink()) == f"../../bin/{flavour.python}"
    assert (rootfs / "usr/bin/nvidia-driver").read_text().startswith("#!/usr/libexec/driverctr/python3 -IS\n")


def test_the_userspace_lies_where_it_belongs(rootfs: Path, flavour: Flavour) -> None:
    for name in SONAMES:
        resolved = (rootfs / LIBRARIES[flavour.name] / name).resolve()
        assert resolved.is_relative_to(rootfs), name
        assert resolved.name == f"{name.partition('.so')[0]}.so.{image.DEFAULT_DRIVER}"
    for name in PROGRAMS:
        assert os.access(rootfs / "usr/bin" / name, os.X_OK), name
    firmware = rootfs / "lib/firmware/nvidia" / image.DEFAULT_DRIVER
    assert {path.name for path in firmware.iterdir()} == {"gsp_tu10x.bin", "gsp_ga10x.bin"}
    assert (rootfs / "usr/share/nvidia/supported-gpus.json").is_file()


def test_the_userspace_is_listed_as_it_lies_there(rootfs: Path, flavour: Flavour) -> None:
    listed = listing.read(rootfs)
    assert listed.platform == f"{flavour.name}-amd64"
    for item in listed.items:
        path = rootfs / item.path
        if item.link:
            assert str(path.readlink()) == item.link and not item.link.startswith("/") and path.exists(), item.path
        else:
            assert (path.stat().st_size, sha256(path)) == (item.size, item.sha256), item.path


def test_repositories_of_the_image_are_named(rootfs: Path, flavour: Flavour) -> None:
    listed = (rootfs / "usr/share/driverctr/default-repositories").read_text().split()
    patterns = {"ubuntu": ("apt/sources.list", "apt/sources.list.d/*"), "rhel": ("yum.repos.d/*.repo",)}[flavour.name]
    there = [path for pattern in patterns for path in (rootfs / "etc").glob(pattern)]
    assert listed and sorted(listed) == sorted(f"/{path.relative_to(rootfs)}" for path in there)


def test_nothing_secret_and_nothing_of_the_build_is_left(rootfs: Path, flavour: Flavour) -> None:
    lists = {"ubuntu": "var/lib/apt/lists", "rhel": "var/cache/dnf"}[flavour.name]
    for folder in ("tmp", "var/tmp", lists):
        assert [str(path) for path in (rootfs / folder).rglob("*") if path.is_file()] == []
    assert [*rootfs.glob("*.run"), *(rootfs / "root").glob("*.gpg")] == []


def test_commands_of_the_contract_are_on_path(run: Run) -> None:
    wanted = " ".join([*COMMANDS, *PROGRAMS, "nvidia-driver", "driverctr"])
    found = run("sh", "-c", f"for c in {wanted}; do command -v $c >/dev/null || echo $c; done; test -x /sbin/modprobe")
    assert (found.exit_status, found.stdout) == (0, "")


def test_nvidias_programs_find_their_libraries(run: Run) -> None:
    ran = run("sh", "-c", "ldconfig -p | grep -c 'libcuda.so.1 '; ldd /usr/bin/nvidia-smi /usr/bin/nvidia-persistenced")
    assert ran.exit_status == 0 and ran.stdout.startswith("1\n")
    assert "not found" not in ran.stdout


def test_nvidia_smi_runs_from_outside_the_root(rootfs: Path, flavour: Flavour) -> None:
    library = (rootfs / LIBRARIES[flavour.name] / "libnvidia-ml.so.1").resolve()
    ran = subprocess.run(
        [rootfs / "usr/bin/nvidia-smi"], env={"LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 9, ran.stdout + ran.stderr


def test_verbs_run_without_privilege(run: Run) -> None:
    helped = run("nvidia-driver", "--help")
    assert helped.exit_status == 0 and "init" in helped.stdout and "Traceback" not in helped.stderr
    ran = run("driverctr", "plan", "--json", user="65534:65534")
    assert ran.exit_status == 0, ran.stderr
    shown: dict[str, Any] = json.loads(ran.stdout)
    assert shown["steps"] and shown["blockers"][0]["code"] == "no-privilege"


def test_modules_are_built_with_headers_of_its_repository(tag: str, flavour: Flavour, tmp_path: Path) -> None:
    """The stand-in's source; the headers come signed, over HTTP, by the distribution's own package tool."""
    release = kernels.get().release
    repository = bases.of(flavour, image.DEFAULT_DRIVER).served
    mounts = {vmhost.IMAGES / "stand-in": SOURCE}
    with serving.serving(repository):
        image.build_modules(tag, tmp_path, release, image.PROPRIETARY, mounts)
    made = tmp_path / release / f"{image.DEFAULT_DRIVER}-{image.PROPRIETARY}"
    assert json.loads((made / "manifest.json").read_text())["modules"].keys() >= {"nvidia", "nvidia-uvm"}


def test_default_repositories_can_be_switched_off(tag: str) -> None:
    environment = {"DEFAULT_REPOSITORIES": "false"}
    argv = ["nvidia-driver", "build", "--kernel", kernels.get().release, "--output", "/tmp/output"]
    with containers.started(tag, argv, environment=environment) as container:
        assert container.wait(timeout=image.LOOK_LIMIT_S)["StatusCode"] != 0
        said = container.logs().decode(errors="replace")
    assert serving.URL not in said and "no headers for kernel" in said
