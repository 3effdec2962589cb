"""`./dev demo`: boot a host, bring NVIDIA's real driver up on it, show it in use, take it away.

README has what it prints: with --record it is written there.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness import image, imagefiles, kernels, vm
from harness.docs import REPOSITORY
from harness.pages import blocks
from harness.vm import Outcome, VmSpec

GUEST = Path(__file__).resolve().parents[1] / "guest"
TIMEOUT_S = 600
PAGE = REPOSITORY / "README.md"
BLOCK = "demo"

Made = TypeVar("Made")


def main(argv: list[str]) -> int:
    """Tell the story; returns 0 if the guest's own exit status is 0."""
    parser = argparse.ArgumentParser(prog="dev demo", description=__doc__)
    parser.add_argument("--kernel", default=kernels.DEFAULT, help="release or its beginning (6.1, 6.12)")
    parser.add_argument("--record", action="store_true", help="put what the host says into README.md")
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
        if arguments.record:
            PAGE.write_text(blocks.fill(PAGE.read_text(), {BLOCK: told(result.output)}))
        return 0
    print(result.report(), file=sys.stderr)
    return 1


def told(output: str) -> str:
    """What the host says, from its first chapter on, as a block of a page."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    return blocks.quoted(plain[plain.index("== 1.") :].splitlines())


def _step(what: str, make: Callable[[], Made]) -> Made:
    """Say what is being made; what is there already takes no time."""
    print(f"Preparing {what} ...", flush=True)
    return make()
