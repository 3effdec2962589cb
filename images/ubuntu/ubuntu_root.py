#!/usr/bin/python3
"""Lay out NVIDIA's files of one driver version below a folder, from Ubuntu's packages, and describe them.

Usage: ubuntu_root.py DRIVER_VERSION ROOT

The packages are those of the branch's server flavour (...-535-server), which NVIDIA's precompiled containers take too.
They are unpacked, not installed: what they depend on, dkms, X, systemd, has no place in the image.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import debs
import driver_files
import layout
from driver_files import ModuleSource, copy

# Names of packages, where {branch} is as in 535-server. All are built from one source package, so their version is the
# driver's: https://launchpad.net/ubuntu/+source/nvidia-graphics-drivers-535-server.
PACKAGES = (
    "libnvidia-cfg1-{branch}",
    "libnvidia-common-{branch}",
    "libnvidia-compute-{branch}",
    "libnvidia-decode-{branch}",
    "libnvidia-encode-{branch}",
    "libnvidia-extra-{branch}",
    "libnvidia-fbc1-{branch}",
    "libnvidia-gl-{branch}",
    "nvidia-compute-utils-{branch}",
    "nvidia-driver-{branch}",
    "nvidia-firmware-{branch}-{version}",
    "nvidia-kernel-source-{branch}",
    "nvidia-kernel-source-{branch}-open",
    "nvidia-utils-{branch}",
)
# Shared files and documentation, with the list of GPUs; not on arm64; not where the branch has the other type only.
OPTIONAL = (
    "libnvidia-common-{branch}",
    "libnvidia-fbc1-{branch}",
    "nvidia-driver-{branch}",
    "nvidia-kernel-source-{branch}",
    "nvidia-kernel-source-{branch}-open",
)
# Of a source package that does not follow the branches: whatever version is offered serves any.
MODPROBE = "nvidia-modprobe"
SOURCE_PACKAGES = (
    ("proprietary", "nvidia-kernel-source-{branch}"),
    ("open", "nvidia-kernel-source-{branch}-open"),
)
# By which loaders find the driver's OpenCL, EGL and Vulkan.
LOADER_FOLDERS = (
    "etc/OpenCL/vendors",
    "usr/share/glvnd/egl_vendor.d",
    "usr/share/vulkan/icd.d",
    "usr/share/vulkan/implicit_layer.d",
)


def main(argv: Sequence[str]) -> int:
    """Build the tree; the exit status is 0, 1 with the reason, or 2 on wrong usage."""
    return driver_files.run(argv, __doc__, build)


def build(version: str, root: Path) -> None:
    """Fill the folder."""
    root.mkdir(parents=True, exist_ok=True)
    release = driver_files.read_release()
    with tempfile.TemporaryDirectory() as scratch:
        wanted = debs.choose(names(PACKAGES, version), (), version, optional=names(OPTIONAL, version))
        unpacked, _ = debs.fetch({**wanted, **debs.whatever_is_offered(MODPROBE)}, Path(scratch))
        lay_out_userspace(unpacked, root, version)
        driver_files.make_relative(root)
        driver_files.list_userspace(root, version, release)
        sources = lay_out_sources(unpacked, root, version)
    driver_files.describe(root, version, sources, release, driver_files.PACKAGES)
    driver_files.check_links(root)


def names(patterns: Sequence[str], version: str) -> list[str]:
    """Return the names of packages for a driver version."""
    branch = f"{version.partition('.')[0]}-server"
    return [pattern.format(branch=branch, version=version) for pattern in patterns]


def lay_out_userspace(unpacked: Path, root: Path, version: str) -> None:
    """Place libraries, programs, what leads to them, firmware and licences; raises BuildError without firmware."""
    libraries = Path("usr/lib") / driver_files.triplet()
    patterns = [f"{libraries}/lib*.so*", "usr/bin/nvidia-*", "usr/sbin/nvidia-*"]
    patterns += [f"{folder}/*" for folder in LOADER_FOLDERS]
    for package in sorted(unpacked.iterdir()):
        for pattern in patterns:
            for file in sorted(package.glob(pattern)):
                copy(file, root / file.relative_to(package))
        licence = package / "usr/share/doc" / package.name / "copyright"
        if licence.is_file():
            copy(licence, root / licence.relative_to(package))
    packages = sorted(unpacked.iterdir())
    layout.place_firmware(packages, root, version)
    layout.place_supported_gpus(packages, root)


def lay_out_sources(unpacked: Path, root: Path, version: str) -> list[ModuleSource]:
    """Place the module sources of both types, as far as there are packages of them; raises BuildError if of none."""
    described = []
    for module_type, pattern in SOURCE_PACKAGES:
        (name,) = names([pattern], version)
        source = unpacked / name / "usr/src" / f"nvidia-srv-{version}"
        if source.is_dir():
            tree = driver_files.source_tree(root, version, module_type)
            shutil.copytree(source, tree, symlinks=True, dirs_exist_ok=True)
            licence = unpacked / name / "usr/share/doc" / name / "copyright"
            described.append(driver_files.finish_source(root, version, module_type, licence))
    if not described:
        raise driver_files.BuildError(
            f"the package sources have no module source of driver {version}: neither of"
            f" {' and '.join(names([pattern for _, pattern in SOURCE_PACKAGES], version))}",
            "Give DRIVER_VERSION another version, or take the run-file (DRIVER_SOURCE=runfile)",
        )
    return described


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
