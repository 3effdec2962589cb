"""The full life of the driver container on a real kernel, with NVIDIA's real modules, as the host sees it."""

from pathlib import Path

import pytest

from harness import cache, image, kernels, proc, vm
from harness.vm import VmSpec

GUEST = Path(__file__).parent / "guest"
IMAGES = Path(__file__).resolve().parents[2] / "images"

LEFT_OUT = ("usr/src/nvidia-*/*/*", "usr/lib/gcc", "usr/share/doc", "usr/include")

pytestmark = pytest.mark.vm


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """The root file system of the image built from the sources as they are."""
    return image.export_rootfs(image.build())


def root_tar(rootfs: Path) -> Path:
    """A folder with the root as a tar, for docker, without the toolchain: importing it takes minutes in emulation."""
    return cache.entry("root-tar", [str(rootfs), *LEFT_OUT], lambda to: _pack(rootfs, to))


def _pack(rootfs: Path, to: Path) -> None:
    left_out = [f"--exclude=./{name}" for name in LEFT_OUT]
    proc.run(["tar", "--numeric-owner", *left_out, "-C", rootfs, "-cf", to / "root.tar", "."], timeout=600)


@pytest.mark.parametrize(
    ("kernel", "runtime"),
    [("6.1", "podman-crun"), ("6.1", "docker"), ("6.12", "podman-crun")],
)
def test_full_cycle_with_real_modules(kernel: str, runtime: str, rootfs: Path) -> None:
    release = kernels.get(kernel).release
    shares = {"guest": GUEST, "modules": image.real_modules(release)}
    docker = runtime == "docker"
    if docker:
        shares["tar"] = root_tar(rootfs)
    spec = VmSpec(
        kernel=kernel, shares=shares, images={"driver": rootfs}, timeout=1500, memory_mb=6144 if docker else 3072
    )
    vm.run(spec, f"bash /mnt/guest/cycle.sh {runtime}", live=True).check()


def test_stand_in_is_built_in_place_in_the_guest(rootfs: Path) -> None:
    spec = VmSpec(shares={"guest": GUEST, "source": IMAGES / "stand-in"}, images={"driver": rootfs}, timeout=900)
    vm.run(spec, "bash /mnt/guest/build_in_place.sh", live=True).check()
