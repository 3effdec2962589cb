"""The full life of the driver container on a real kernel, with NVIDIA's real modules, as the host sees it."""

from pathlib import Path

import pytest

from harness import flavours, image, imagefiles, kernels, vm
from harness.flavours import Flavour
from harness.vm import VmSpec

GUEST = Path(__file__).parent / "guest"
IMAGES = Path(__file__).resolve().parents[2] / "images"
TIMEOUT_S = 1500

pytestmark = pytest.mark.vm


def test_full_cycle_of_the_image_that_docker_loaded() -> None:
    tag = image.build()
    shares = {"guest": GUEST, "modules": image.real_modules(kernels.get().release)}
    saved = imagefiles.saved(tag)
    spec = VmSpec(shares=shares, images={"saved": saved}, scratch=["/var/lib/docker"], timeout=TIMEOUT_S)
    vm.run(spec, f"bash /mnt/guest/cycle.sh docker {imagefiles.identity(tag)}", live=True).check()


@pytest.mark.parametrize(
    ("kernel", "runtime"), [("6.1", "podman-crun"), ("6.1", "podman-runc"), ("6.12", "podman-crun")]
)
def test_full_cycle_with_real_modules(kernel: str, runtime: str, rootfs: Path) -> None:
    shares = {"guest": GUEST, "modules": image.real_modules(kernels.get(kernel).release)}
    spec = VmSpec(kernel=kernel, shares=shares, images={"driver": rootfs}, timeout=TIMEOUT_S)
    vm.run(spec, f"bash /mnt/guest/cycle.sh {runtime}", live=True).check()


@pytest.mark.parametrize(
    ("flavour", "libraries"),
    [(flavours.UBUNTU, "lib/x86_64-linux-gnu"), (flavours.RHEL, "lib64")],
    ids=["ubuntu", "rhel"],
)
def test_life_of_another_distributions_image(flavour: Flavour, libraries: str) -> None:
    root = imagefiles.export_rootfs(image.build(flavour=flavour))
    shares = {"guest": GUEST, "modules": image.real_modules(kernels.get().release)}
    spec = VmSpec(shares=shares, images={"driver": root}, timeout=TIMEOUT_S)
    vm.run(spec, f"bash /mnt/guest/image_cycle.sh podman-crun {libraries}", live=True).check()
