"""Kernel modules of the proving ground, built natively: seconds, where the guest would take half a minute."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness import cache, kernels, proc, vmhost
from harness.kernels import Kernel

SOURCES = (vmhost.IMAGES / "emulated-gpu", vmhost.IMAGES / "stand-in")


def build(release: str = kernels.DEFAULT) -> Path:
    """Return a folder with the emulated GPU and the stand-in modules for a kernel, stripped of debug info."""
    return build_for(kernels.get(release))


def build_for(kernel: Kernel) -> Path:
    """Return the folder of build() for a kernel already at hand."""
    return cache.entry("vm-modules", [kernel.release, str(kernel.tree), *SOURCES], lambda to: _build(to, kernel))


def _build(to: Path, kernel: Kernel) -> None:
    for source in SOURCES:
        work = to / source.name
        shutil.copytree(source, work)
        proc.run(make_command(kernel, work), timeout=600)
        for module in work.glob("*.ko"):
            proc.run(["strip", "-g", module])
            module.rename(to / module.name)
        shutil.rmtree(work)


def make_command(kernel: Kernel, work: Path) -> list[str | Path]:
    """Return the make line that builds the modules in `work` against headers that lie in the cache.

    The headers' own Makefile names /usr/src, so the common part is called with the flavour's folder as output.
    """
    flavour = kernel.headers / f"usr/src/linux-headers-{kernel.release}"
    common = flavour.with_name(f"linux-headers-{kernel.release.removesuffix(kernels.FLAVOUR)}-common")
    return [
        proc.need("make", "make"),
        f"-j{os.cpu_count() or 1}",
        "-C",
        common,
        f"KBUILD_OUTPUT={flavour}",
        f"M={work}",
        # Type information would need pahole, and nothing here reads it.
        "CONFIG_DEBUG_INFO_BTF_MODULES=",
        "modules",
    ]
