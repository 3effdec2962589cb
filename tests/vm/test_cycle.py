"""The full life of the driver container on a real kernel, with NVIDIA's real modules, as the host sees it."""

from pathlib import Path

import pytest

from harness import image, kernels, vm
from harness.vm import VmSpec

GUEST = Path(__file__).parent / "guest"
IMAGES = Path(__file__).resolve().parents[2] / "images"

pytestmark = pytest.mark.vm


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """The root file system of the image built from the sources as they are."""
    return image.export_rootfs(image.build())


@pytest.mark.parametrize(
    ("kernel", "runtime"),
    [("6.1", "podman-crun"), ("6.1", "podman-runc"), ("6.1", "docker"), ("6.12", "podman-crun")],
)
def test_full_cycle_with_real_modules(kernel: str, runtime: str, rootfs: Path) -> None:
    release = kernels.get(kernel).release
    shares = {"guest": GUEST, "modules": image.real_modules(release)}
    spec = VmSpec(kernel=kernel, shares=shares, images={"driver": rootfs}, timeout=1500)
    vm.run(spec, f"bash /mnt/guest/cycle.sh {runtime}", live=True).check()


def test_stand_in_is_built_in_place_in_the_guest(rootfs: Path) -> None:
    spec = VmSpec(shares={"guest": GUEST, "source": IMAGES / "stand-in"}, images={"driver": rootfs}, timeout=900)
    vm.run(spec, "bash /mnt/guest/build_in_place.sh", live=True).check()
