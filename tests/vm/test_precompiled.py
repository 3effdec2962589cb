"""The image for one kernel on that kernel, and where another one runs."""

from pathlib import Path

import pytest

from harness import image, imagefiles, kernels, precompiled, vm
from harness.vm import VmSpec

GUEST = Path(__file__).parent / "guest"
TIMEOUT_S = 1500

pytestmark = pytest.mark.vm


def test_full_cycle_of_a_precompiled_image_without_a_network() -> None:
    release = kernels.get().release
    (manifest,) = image.real_modules(release).glob("*/*/manifest.json")
    root = imagefiles.export_rootfs(precompiled.build(release, modules=manifest.parent))
    spec = VmSpec(shares={"guest": GUEST}, images={"driver": root}, headers=False, timeout=TIMEOUT_S)
    vm.run(spec, "bash /mnt/guest/precompiled.sh podman-crun", live=True).check()
