#!/usr/bin/python3
"""Lay out NVIDIA's files of one driver version below a folder, from Debian's packages, and describe them.

Usage: nvidia_root.py DRIVER_VERSION ROOT

Debian spreads the driver over /usr/lib/*/nvidia/current and absolute links through /etc/alternatives. Neighbours
load libraries and run nvidia-smi from outside the driver root, where an absolute link points into their own file
system. So the packages are unpacked, not installed: libraries go into the standard folder with relative links,
programs into /usr/bin and /usr/sbin, and a link to the module sources where NVIDIA's own container has them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import debs
import driver_files
import layout
from driver_files import BuildError, ModuleSource, copy

# Of the same source package as the driver itself: their version is the driver's, to the byte. OptiX (libnvoptix1) is
# left out: 189 MB for one kind of renderer.
DRIVER_PACKAGES = (
    "firmware-nvidia-gsp",
    "libcuda1",
    "libcudadebugger1",
    "libegl-nvidia0",
    "libgles-nvidia1",
    "libgles-nvidia2",
    "libglx-nvidia0",
    "libnvcuvid1",
    "libnvidia-allocator1",
    "libnvidia-cfg1",
    "libnvidia-eglcore",
    "libnvidia-encode1",
    "libnvidia-fbc1",
    "libnvidia-glcore",
    "libnvidia-glvkspirv",
    "libnvidia-ml1",
    "libnvidia-ngx1",
    "libnvidia-nvvm4",
    "libnvidia-opticalflow1",
    "libnvidia-pkcs11-openssl3",
    "libnvidia-ptxjitcompiler1",
    "libnvidia-rtcore",
    "nvidia-cuda-mps",
    "nvidia-driver",
    "nvidia-egl-common",
    "nvidia-kernel-source",
    "nvidia-opencl-common",
    "nvidia-opencl-icd",
    "nvidia-smi",
    "nvidia-vulkan-common",
)
# By which loaders find the driver's OpenCL, EGL and Vulkan: package and file, each of which names a library by soname.
LOADER_FILES = (
    ("nvidia-opencl-common", "etc/OpenCL/vendors/nvidia.icd"),
    ("nvidia-egl-common", "usr/share/glvnd/egl_vendor.d/10_nvidia.json"),
    ("nvidia-vulkan-common", "usr/share/vulkan/icd.d/nvidia_icd.json"),
    ("nvidia-vulkan-common", "usr/share/vulkan/implicit_layer.d/nvidia_layers.json"),
)
# Of source packages of their own, which do not follow each release: the newest of the driver's branch serves.
COMPANION_PACKAGES = ("nvidia-open-kernel-source", "nvidia-persistenced")
# It makes device nodes, for a driver of any branch: Debian 13 has that of 570 beside the driver 550.
MODPROBE = "nvidia-modprobe"
# Name of the source archive below /usr/src, its package, module type.
SOURCE_ARCHIVES = (
    ("nvidia-kernel.tar.xz", "nvidia-kernel-source", "proprietary"),
    ("nvidia-open-kernel.tar.xz", "nvidia-open-kernel-source", "open"),
)


def main(argv: Sequence[str]) -> int:
    """Build the tree; the exit status is 0, 1 with the reason, or 2 on wrong usage."""
    return driver_files.run(argv, __doc__, build)


def build(version: str, root: Path) -> None:
    """Fill the folder."""
    root.mkdir(parents=True, exist_ok=True)
    release = driver_files.read_release()
    with tempfile.TemporaryDirectory() as scratch:
        wanted = debs.choose(DRIVER_PACKAGES, COMPANION_PACKAGES, version, optional=())
        unpacked, versions = debs.fetch({**wanted, **debs.whatever_is_offered(MODPROBE)}, Path(scratch))
        lay_out_userspace(unpacked, root, version)
        driver_files.list_userspace(root, version, release)
        sources = [
            lay_out_source(unpacked / package, archive, versions[package], module_type, root)
            for archive, package, module_type in SOURCE_ARCHIVES
            if package in versions
        ]
    driver_files.describe(root, version, sources, release, driver_files.PACKAGES)
    driver_files.check_links(root)


def lay_out_userspace(unpacked: Path, root: Path, version: str) -> None:
    """Place libraries, programs, firmware and licences."""
    libraries = Path("usr/lib") / driver_files.triplet()
    for package in sorted(unpacked.iterdir()):
        for folder in (libraries, libraries / "nvidia/current"):
            for file in sorted((package / folder).glob("lib*.so*")):
                copy(file, root / libraries / file.name)
        for programs in ("usr/bin", "usr/sbin"):
            for file in sorted((package / programs).glob("nvidia-*")):
                copy(file, root / programs / file.name)
        licence = package / "usr/share/doc" / package.name / "copyright"
        if licence.is_file():
            copy(licence, root / licence.relative_to(package))
    copy(unpacked / "nvidia-smi/usr/lib/nvidia/current/nvidia-smi", root / "usr/bin/nvidia-smi")
    for owner, name in LOADER_FILES:
        copy(unpacked / owner / name, root / name)
    layout.place_firmware([unpacked / "firmware-nvidia-gsp"], root, version)
    if not layout.place_supported_gpus([unpacked / "nvidia-driver"], root):
        raise BuildError(f"nvidia-driver {version} has no list of supported GPUs", "Report it")


def lay_out_source(package: Path, archive: str, version: str, module_type: str, root: Path) -> ModuleSource:
    """Unpack one archive of module source."""
    tree = driver_files.source_tree(root, version, module_type)
    unpack: list[str | Path] = ["tar", "--extract", "--file", package / "usr/src" / archive, "--strip-components=2"]
    subprocess.run([*unpack, "--no-same-owner", "--directory", tree], check=True)
    licence = package / "usr/share/doc" / package.name / "copyright"
    return driver_files.finish_source(root, version, module_type, licence)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
