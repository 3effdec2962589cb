"""Signed modules from packages like Canonical's: installed by real apt and dpkg, taken to the byte, refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from driverctr.hashing import sha256
from harness import canonical, containers, image, kernels
from harness.errors import HarnessError

pytestmark = pytest.mark.image

LIMIT_S = 600
IMAGES = Path(__file__).resolve().parents[2] / "images"
BRANCH = "535-server"
SOURCES = f"deb [signed-by=/repository/test.asc] file:/repository {canonical.SUITE} main"
SET_UP = f"echo '{SOURCES}' >/etc/apt/sources.list; rm -f /etc/apt/sources.list.d/*; mkdir /tmp/driver; \
cp /common/* /ubuntu/* /tmp/driver; export DRIVER_VERSION={image.DEFAULT_DRIVER} KERNEL_MODULE_TYPE=auto"


@pytest.fixture(scope="module")
def modules() -> Path:
    """Return NVIDIA's real modules, built once for all tests."""
    (found,) = image.real_modules(kernels.get().release).glob("*/*/manifest.json")
    return found.parent


def run(tag: str, modules: Path, script: str) -> str:
    """Run a script as a stage of Dockerfile.ubuntu would; raises HarnessError with what it said."""
    folders = {
        canonical.repository(kernels.get(), modules, BRANCH) / "repository": "/repository",
        IMAGES / "common": "/common",
        IMAGES / "ubuntu": "/ubuntu",
    }
    volumes = {str(path): {"bind": place, "mode": "ro"} for path, place in folders.items()}
    return containers.output(tag, ["sh", "-ec", f"{SET_UP}; {script}"], LIMIT_S, volumes=volumes)


def test_they_are_installed_described_and_stay_as_they_were_signed(tag: str, modules: Path) -> None:
    release = kernels.get().release
    signed = f"KERNEL_VERSION={release} MODULES_SOURCE=signed sh /tmp/driver/signed-modules.sh /modules >&2"
    taken = f"KERNEL_VERSION={release} sh /common/bake.sh /modules >&2"
    digests = f"cd /opt/driverctr/modules/{release}/{image.DEFAULT_DRIVER}-proprietary; sha256sum *.ko"
    said = run(tag, modules, f"{signed}; {taken}; {digests}")
    found = {name: digest for digest, name in (line.split() for line in said.splitlines())}
    wanted = canonical.signed(kernels.get(), modules)
    assert found == {file.name: sha256(file) for file in wanted.glob("*.ko")}
    assert found["nvidia.ko"] != sha256(modules / "nvidia.ko")


def test_a_kernel_without_signed_modules_ends_the_build_with_those_there_are(tag: str, modules: Path) -> None:
    script = "KERNEL_VERSION=5.15.0-1-generic MODULES_SOURCE=signed sh /tmp/driver/signed-modules.sh /modules"
    with pytest.raises(HarnessError, match=f"for {BRANCH} they have kernels {kernels.get().release}"):
        run(tag, modules, script)


def test_another_driver_version_than_the_userspaces_is_refused(tag: str, modules: Path) -> None:
    release = kernels.get().release
    script = f"sed -i s/{image.DEFAULT_DRIVER}/535.183.01/ /usr/share/driverctr/image.json; unset DRIVER_VERSION; \
KERNEL_VERSION={release} DRIVER_VERSION=535.183.01 MODULES_SOURCE=signed sh /tmp/driver/signed-modules.sh /modules; \
nvidia-driver build --kernel {release} --modules /modules"
    told = f"is of driver {image.DEFAULT_DRIVER}, the userspace of this image of 535.183.01"
    with pytest.raises(HarnessError, match=told):
        run(tag, modules, script)
