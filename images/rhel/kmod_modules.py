#!/usr/bin/python3
"""Have the modules of a precompiled kmod package for one kernel, in a stage of an image's build that is thrown away.

Usage: kmod_modules.py [--type auto|open|proprietary] DRIVER_VERSION KERNEL_RELEASE OUT

kmod-nvidia[-open]-<driver>-<kernel without its dist> has the kernel's dist in its release (2.el9_4). NVIDIA's holds
objects, a linker and detached signatures, of which its installation makes modules, below lib/modules/<kernel>/extra
(kmod-nvidia.spec of github.com/NVIDIA/yum-packaging-precompiled-kmod); so it is installed, as in NVIDIA's own
precompiled containers. One that holds modules is installed alike. What lies there then is copied to OUT, to the byte.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import driver_files
import rpms
from driver_files import BuildError
from rpms import Offer

MODULE = re.compile(r"nvidia(-uvm|-modeset|-peermem)?\.ko(\.zst|\.xz|\.gz)?")
# 5.14.0-427.13.1.el9_4.x86_64, and for other page sizes 5.14.0-427.13.1.el9_4.aarch64+64k
KERNEL = re.compile(r"(?P<version>[^-]+-[\d.]+)\.(?P<dist>el\d+(?:_\d+)?)\.(?P<machine>\w+)(?:\+(?P<flavour>\w+))?")
# From this branch on NVIDIA's own choice is the open modules.
OPEN_FROM = 560
ROOT = Path("/")


def main(argv: Sequence[str]) -> int:
    """Fill the folder; the exit status is 0, 1 with the error, or 2 on wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", choices=("auto", "open", "proprietary"), default="auto")
    parser.add_argument("version")
    parser.add_argument("kernel")
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args(argv)
    return driver_files.end(lambda: collect(chosen.version, chosen.type, chosen.kernel, chosen.out, ROOT))


def collect(version: str, module_type: str, kernel: str, out: Path, root: Path) -> None:
    """Install the package and copy the modules; raises BuildError, or what the package tool's failure is."""
    package = choose(version, module_type, kernel)
    with tempfile.TemporaryDirectory() as scratch:
        file = rpms.fetch([package], Path(scratch))[package.name]
        subprocess.run([*rpms.DNF, "install", file], check=True)
    folder = root / "lib/modules" / kernel
    made = [file for file in sorted(folder.rglob("nvidia*.ko*")) if MODULE.fullmatch(file.name)]
    if not made:
        raise BuildError(
            f"{package.file_name} is installed, and no modules lie below {folder}",
            "See what its installation said above: they are linked then",
        )
    out.mkdir(parents=True, exist_ok=True)
    for file in made:
        shutil.copyfile(file, out / file.name)


def choose(version: str, module_type: str, kernel: str) -> Offer:
    """Return the newest package for this driver and kernel; raises BuildError with the kernels that have one."""
    named = KERNEL.fullmatch(kernel)
    if named is None:
        raise BuildError(
            f"KERNEL_VERSION={kernel} is no kernel of RHEL's", "Give it as uname -r, like 5.14.0-427.13.1.el9_4.x86_64"
        )
    prefixes = [prefix(name, version, named["flavour"]) for name in types(version, module_type)]
    offered = rpms.offers(f"{start}*" for start in prefixes)
    for start in prefixes:
        fitting = [one for one in offered if one.name == f"{start}{named['version']}" and dist(one) == named["dist"]]
        if fitting:
            return fitting[-1]
    kernels = sorted({f"{one.name[len(start) :]}.{dist(one)}" for start in prefixes for one in offered
                      if one.name.startswith(start)})  # fmt: skip
    raise BuildError(
        f"the repositories have no {' or '.join(start + named['version'] for start in prefixes)} for"
        f" {named['dist']}; of driver {version} they have kernels {', '.join(kernels) or 'none'}",
        "Give the build one of these, another DRIVER_VERSION or repository (REPO_FILES), or build the modules",
    )


def types(version: str, module_type: str) -> list[str]:
    """Return the types of modules that will do, the better one first."""
    if module_type != "auto":
        return [module_type]
    both = ["proprietary", "open"]
    return both[::-1] if int(version.partition(".")[0]) >= OPEN_FROM else both


def prefix(module_type: str, version: str, flavour: str | None) -> str:
    """Return the beginning of a package's name, up to the kernel's version."""
    kind = "nvidia-open" if module_type == "open" else "nvidia"
    return f"kmod-{flavour + '-' if flavour else ''}{kind}-{version}-"


def dist(package: Offer) -> str:
    """Return what a package's release says of the distribution."""
    return package.release.partition(".")[2]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
