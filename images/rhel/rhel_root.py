#!/usr/bin/python3
"""Lay out NVIDIA's files of one driver version below a folder, from NVIDIA's rpm packages, and describe them.

Usage: rhel_root.py DRIVER_VERSION ROOT

They are unpacked, not installed: what they depend on, dkms, X, systemd, has no place in the image.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import driver_files
import layout
import rpms
from driver_files import BuildError, ModuleSource, copy
from rpms import Offer

# From no branch on is it required: it is taken where it is offered.
NEVER = 10**6


@dataclass(frozen=True)
class Wanted:
    """A package by the names it has had, the newest first, and the branch from which on there must be one."""

    names: tuple[str, ...]
    required_from: int = 0


# In 535 NVML is in nvidia-driver-NVML, FBC in nvidia-driver-NvFBCOpenGL, libnvidia-cfg in nvidia-driver-libs, firmware
# in nvidia-driver (github.com/NVIDIA/yum-packaging-nvidia-driver, nvidia-driver.spec). In 580 they have packages of
# their own (Amazon Linux's notes list those of NVIDIA's repository: 580.126.09, 595.58.03).
PACKAGES = (
    Wanted(("nvidia-driver",)),
    Wanted(("nvidia-driver-cuda",)),
    Wanted(("nvidia-driver-cuda-libs",)),
    Wanted(("nvidia-driver-libs",)),
    Wanted(("libnvidia-ml", "nvidia-driver-NVML")),
    Wanted(("nvidia-persistenced",)),
    Wanted(("libnvidia-cfg",), 580),
    Wanted(("libnvidia-gpucomp",), 580),
    Wanted(("nvidia-kmod-common",), 580),
    Wanted(("libnvidia-fbc", "nvidia-driver-NvFBCOpenGL"), NEVER),
    Wanted(("nvidia-modprobe",), NEVER),
)
SOURCE_PACKAGES = (("proprietary", "kmod-nvidia-latest-dkms"), ("open", "kmod-nvidia-open-dkms"))
LOADER_FOLDERS = (
    "etc/OpenCL/vendors",
    "usr/share/glvnd/egl_vendor.d",
    "usr/share/vulkan/icd.d",
    "usr/share/vulkan/implicit_layer.d",
)
PATTERNS = ("usr/lib64/lib*.so*", "usr/bin/nvidia-*", "usr/sbin/nvidia-*", *(f"{name}/*" for name in LOADER_FOLDERS))
# Of use to systemd and X only.
LEFT_OUT = ("nvidia-sleep.sh", "nvidia-powerd", "nvidia-settings", "nvidia-xconfig")


def main(argv: Sequence[str]) -> int:
    """Build the tree; the exit status is 0, 1 with the reason, or 2 on wrong usage."""
    return driver_files.run(argv, __doc__, build)


def build(version: str, root: Path) -> None:
    """Fill the folder."""
    root.mkdir(parents=True, exist_ok=True)
    release = driver_files.read_release()
    with tempfile.TemporaryDirectory() as scratch:
        files = rpms.fetch(choose(version), Path(scratch, "packages"))
        unpacked = {name: rpms.unpack(file, Path(scratch, "unpacked", name)) for name, file in files.items()}
        lay_out_userspace(unpacked, root, version)
        driver_files.make_relative(root)
        driver_files.list_userspace(root, version, release)
        sources = lay_out_sources(unpacked, root, version)
    driver_files.describe(root, version, sources, release, driver_files.PACKAGES)
    driver_files.check_links(root)


def choose(version: str) -> list[Offer]:
    """Return the packages to fetch, all of the driver's version; raises BuildError with the versions offered."""
    sources = [name for _, name in SOURCE_PACKAGES]
    offered = rpms.offers([*(name for row in PACKAGES for name in row.names), *sources])
    fitting = {one.name: one for one in offered if one.version == version}
    chosen = []
    for row in PACKAGES:
        found = next((fitting[name] for name in row.names if name in fitting), None)
        if found is not None:
            chosen.append(found)
        elif int(version.partition(".")[0]) >= row.required_from:
            raise missing(row.names, version, offered)
        else:
            print(f"left out: the repositories have no {' or '.join(row.names)} {version}", flush=True)
    trees = [fitting[name] for name in sources if name in fitting]
    if not trees:
        raise missing(sources, version, offered)
    return [*chosen, *trees]


def missing(names: Sequence[str], version: str, offered: Sequence[Offer]) -> BuildError:
    """Return the error for packages that there are none of in this version."""
    versions = dict.fromkeys(one.version for one in sorted(offered, key=lambda one: one.order) if one.name in names)
    return BuildError(
        f"the repositories have no {' or '.join(names)} of driver {version}, but: {', '.join(versions) or 'none'}",
        "Give DRIVER_VERSION one of these, add NVIDIA's repository (REPO_FILES), or take the run-file"
        " (DRIVER_SOURCE=runfile)",
    )


def lay_out_userspace(unpacked: dict[str, Path], root: Path, version: str) -> None:
    """Place libraries, programs, what leads to them, firmware and licences; raises BuildError without firmware."""
    for name, package in unpacked.items():
        for pattern in PATTERNS:
            for file in sorted(package.glob(pattern)):
                if file.name not in LEFT_OUT:
                    copy(file, root / file.relative_to(package))
        for licence in sorted(package.glob(f"usr/share/licenses/{name}*/*")):
            copy(licence, root / licence.relative_to(package))
    layout.place_firmware(unpacked.values(), root, version)
    if not layout.place_supported_gpus(unpacked.values(), root):
        print(f"no package has {driver_files.SUPPORTED_GPUS}: the module type goes by the branch", flush=True)


def lay_out_sources(unpacked: dict[str, Path], root: Path, version: str) -> list[ModuleSource]:
    """Place the module sources of the types that there are packages of; raises BuildError if one has none in it."""
    described = []
    for module_type, name in SOURCE_PACKAGES:
        if name in unpacked:
            tree = driver_files.source_tree(root, version, module_type)
            shutil.copytree(find_source(unpacked[name], name, version), tree, symlinks=True, dirs_exist_ok=True)
            described.append(driver_files.finish_source(root, version, module_type, find_licence(unpacked, name)))
    return described


def find_source(package: Path, name: str, version: str) -> Path:
    """Return where a package has its sources: nvidia-<version>, or nvidia-open-<version>; raises BuildError."""
    found = [path for path in sorted(package.glob(f"usr/src/nvidia*-{version}")) if (path / "Makefile").is_file()]
    if not found:
        raise BuildError(
            f"{name} {version} has no usr/src/nvidia*-{version} with a Makefile",
            "Report it: NVIDIA's packages are not as known; the run-file serves (DRIVER_SOURCE=runfile)",
        )
    return found[0]


def find_licence(unpacked: dict[str, Path], name: str) -> Path:
    """Return the licence of a package, or where it has none of its own the driver's; raises BuildError."""
    for place in (unpacked[name], unpacked["nvidia-driver"]):
        found = sorted(file for file in place.glob("usr/share/licenses/*/*") if file.is_file())
        if found:
            return found[0]
    raise BuildError("nvidia-driver has no licence in usr/share/licenses", "Report it: its files are not as known")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
