#!/usr/bin/python3
"""Lay out NVIDIA's files of one driver version below a folder, from Debian's packages, and describe them.

Usage: nvidia_root.py DRIVER_VERSION ROOT

Debian spreads the driver over /usr/lib/*/nvidia/current and absolute links through /etc/alternatives. Neighbours
load libraries and run nvidia-smi from outside the driver root, where an absolute link points into their own file
system. So the packages are unpacked, not installed: libraries go into the standard folder with relative links,
programs into /usr/bin and /usr/sbin, and a link to the module sources where NVIDIA's own container has them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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
COMPANION_PACKAGES = ("nvidia-modprobe", "nvidia-open-kernel-source", "nvidia-persistenced")
# Name of the source archive below /usr/src, module type, folder in NVIDIA's own layout.
SOURCE_ARCHIVES = (
    ("nvidia-kernel.tar.xz", "nvidia-kernel-source", "proprietary", "kernel"),
    ("nvidia-open-kernel.tar.xz", "nvidia-open-kernel-source", "open", "kernel-open"),
)
# Kept from /usr/src, on which a user without hostPID mounts the host's headers; a relative link leads here from there.
SOURCES = Path("opt/driverctr/source")
DISTRIBUTION = "debian"
DESCRIPTION = "usr/share/driverctr/image.json"
LISTING = "usr/share/driverctr/userspace.json"
# Documentation, and lists that only our own program reads: no part of what a neighbour finds of the driver.
NOT_USERSPACE = "usr/share"


@dataclass(frozen=True)
class ModuleSource:
    """One tree of kernel module source in the image."""

    type: str
    version: str
    path: str
    sha256: str


def main(argv: Sequence[str]) -> int:
    """Build the tree; the exit status is 0, or 2 on wrong usage."""
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    version, root = argv[0], Path(argv[1])
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        unpacked, versions = fetch(version, Path(scratch))
        lay_out_userspace(unpacked, root, version)
        list_userspace(root, version)
        sources = [
            lay_out_source(unpacked / package, archive, versions[package], module_type, folder, root)
            for archive, package, module_type, folder in SOURCE_ARCHIVES
            if package in versions
        ]
    describe(root, version, sources)
    check_links(root)
    return 0


def fetch(version: str, scratch: Path) -> tuple[Path, dict[str, str]]:
    """Download and unpack the packages; returns the folder of unpacked trees, and each package's upstream version."""
    wanted = {name: newest(name, version, exactly=True) for name in DRIVER_PACKAGES}
    wanted |= {name: newest(name, version, exactly=False) for name in COMPANION_PACKAGES}
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "--quiet", "download"]
    subprocess.run([*command, *(f"{name}={full}" for name, full in wanted.items())], cwd=scratch, check=True)
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    for name in wanted:
        (archive,) = scratch.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, unpacked / name], check=True)
        archive.unlink()
    return unpacked, {name: upstream(full) for name, full in wanted.items()}


def newest(package: str, version: str, *, exactly: bool) -> str:
    """Return the newest package version offered that fits the driver: the same, or of its branch and not newer."""
    shown = subprocess.run(["apt-cache", "madison", package], check=True, stdout=subprocess.PIPE, text=True).stdout
    offered = list(dict.fromkeys(line.split("|")[1].strip() for line in shown.splitlines()))
    branch = version.partition(".")[0]
    fitting = [
        full
        for full in offered
        if upstream(full) == version
        or (not exactly and upstream(full).partition(".")[0] == branch and order(upstream(full)) < order(version))
    ]
    if not fitting:
        raise SystemExit(f"no {package} for driver {version} in the package sources; offered: {', '.join(offered)}")
    return max(fitting, key=lambda full: (order(upstream(full)), offered.index(full) * -1))


def upstream(full: str) -> str:
    """Return NVIDIA's own version of a Debian package version."""
    return full.rpartition(":")[2].rpartition("-")[0]


def order(version: str) -> tuple[int, ...]:
    """Return a sort key of NVIDIA's versions, which are numbers and dots."""
    return tuple(int(part) for part in version.split("."))


def lay_out_userspace(unpacked: Path, root: Path, version: str) -> None:
    """Place libraries, programs, firmware and licences."""
    libraries = Path("usr/lib") / triplet()
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
    # Which GPUs the release supports: documentation to the package, and to us what decides before a module is loaded.
    packed = unpacked / "nvidia-driver/usr/share/doc/nvidia-driver/supported-gpus.json.gz"
    supported = root / "usr/share/nvidia/supported-gpus.json"
    supported.parent.mkdir(parents=True, exist_ok=True)
    supported.write_bytes(gzip.decompress(packed.read_bytes()))
    for blob in sorted((unpacked / "firmware-nvidia-gsp/lib/firmware/nvidia" / version).glob("*.bin")):
        # /lib is a link to usr/lib in the image; a folder of that name in a copied tree would stand in its way.
        copy(blob, root / "usr/lib/firmware/nvidia" / version / blob.name)


def copy(source: Path, target: Path) -> None:
    """Copy a file with its mode and times, or a link as it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


def triplet() -> str:
    """Return the name of the standard library folder of this architecture."""
    machine = os.uname().machine
    return f"{machine}-linux-gnu"


def lay_out_source(
    package: Path, archive: str, version: str, module_type: str, folder: str, root: Path
) -> ModuleSource:
    """Unpack one archive of module source, and show it where NVIDIA's installer does, /usr/src/nvidia-<version>."""
    place = SOURCES / f"nvidia-{version}"
    tree = root / place / folder
    tree.mkdir(parents=True)
    shown = root / "usr/src" / place.name
    if not shown.is_symlink():
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.symlink_to(os.path.relpath(root / place, shown.parent))
    unpack: list[str | Path] = ["tar", "--extract", "--file", package / "usr/src" / archive, "--strip-components=2"]
    subprocess.run([*unpack, "--no-same-owner", "--directory", tree], check=True)
    # Debian's packaging of the modules is of no use here.
    shutil.rmtree(tree / "debian", ignore_errors=True)
    (tree / "dkms.conf").unlink(missing_ok=True)
    for binary in sorted(tree.rglob("*.o_binary")):
        # The open release carries 160 MB of debug information in these; the modules are stripped of it anyway.
        subprocess.run(["strip", "--strip-debug", "--preserve-dates", binary], check=True)
    copy(package / "usr/share/doc" / package.name / "copyright", root / place / "LICENSE")
    return ModuleSource(module_type, version, f"/{place / folder}", tree_digest(tree))


def tree_digest(tree: Path) -> str:
    """Return the SHA-256 over all files of a tree, by name: name, size and content of each."""
    total = hashlib.sha256()
    for file in sorted((p for p in tree.rglob("*") if p.is_file()), key=lambda p: p.relative_to(tree).as_posix()):
        content = file.read_bytes()
        total.update(f"{file.relative_to(tree).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def list_userspace(root: Path, version: str) -> None:
    """Write what belongs to the userspace, while nothing else is there: the program keeps it for a rollback."""
    found = [path for path in sorted(root.rglob("*")) if path.is_symlink() or path.is_file()]
    items = [describe_file(root, path) for path in found if not path.is_relative_to(root / NOT_USERSPACE)]
    record = {"schema": 1, "driver_version": version, "platform": f"{DISTRIBUTION}-{architecture()}", "items": items}
    target = root / LISTING
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")


def describe_file(root: Path, path: Path) -> dict[str, str | int]:
    """Describe a file by its content and mode, a link by where it leads."""
    name = path.relative_to(root).as_posix()
    if path.is_symlink():
        return {"path": name, "link": os.readlink(path), "sha256": "", "size": 0, "mode": 0o777}
    content = path.read_bytes()
    mode = path.stat().st_mode & 0o7777
    return {"path": name, "link": "", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "mode": mode}


def architecture() -> str:
    """Return the architecture as Debian calls it."""
    shown = subprocess.run(["dpkg", "--print-architecture"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return shown.strip()


def describe(root: Path, version: str, sources: Sequence[ModuleSource]) -> None:
    """Write what the image holds, for the program to read."""
    record = {
        "driver_version": version,
        "sources": [asdict(source) for source in sources],
        "distribution": DISTRIBUTION,
        "architecture": architecture(),
    }
    target = root / DESCRIPTION
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")


def check_links(root: Path) -> None:
    """Raise SystemExit if a link leaves the tree or points nowhere."""
    for path in root.rglob("*"):
        if path.is_symlink() and (os.path.isabs(os.readlink(path)) or not path.exists()):
            raise SystemExit(f"{path} -> {os.readlink(path)}: a link that breaks outside the driver root")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
