"""`./dev demo`: boot a host, bring NVIDIA's real driver up on it, show it in use, take it away."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness import image, imagefiles, kernels, vm
from harness.vm import Outcome, VmSpec

GUEST = Path(__file__).resolve().parents[1] / "guest"
TIMEOUT_S = 600

Made = TypeVar("Made")


def main(argv: list[str]) -> int:
    """Tell the story; returns 0 if the guest's own exit status is 0."""
    parser = argparse.ArgumentParser(prog="dev demo", description=__doc__)
    parser.add_argument("--kernel", default=kernels.DEFAULT, help="release or its beginning (6.1, 6.12)")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    release = _step("the kernel of a Debian host", lambda: kernels.get(arguments.kernel)).release
    tag = _step("the container image (Dockerfile.debian)", image.build)
    root = _step("its root file system", lambda: imagefiles.export_rootfs(tag))
    modules = _step(
        f"NVIDIA's modules: nvidia-driver build --kernel {release}, about 5 minutes the first time",
        lambda: image.real_modules(release),
    )
    print(
        f"Booting the host ({time.monotonic() - began:.0f} s so far). All that follows is its own output.", flush=True
    )
    spec = VmSpec(
        kernel=release,
        shares={"guest": GUEST, "modules": modules},
        images={"driver": root},
        cpus=2,
        parallel=True,
        timeout=TIMEOUT_S,
    )
    result = vm.run(spec, "bash /mnt/guest/demo.sh", live=True)
    print(f"\nThe demo took {time.monotonic() - began:.0f} s.")
    if result.outcome is Outcome.PASSED:
        return 0
    print(result.report(), file=sys.stderr)
    return 1


def _step(what: str, make: Callable[[], Made]) -> Made:
    """Say what is being made; what is there already takes no time."""
    print(f"Preparing {what} ...", flush=True)
    return make()
