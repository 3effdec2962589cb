#!/usr/bin/python3
"""Have Canonical's signed modules for one kernel of Ubuntu, in a stage of an image's build that is thrown away.

Usage: signed_modules.py [--open] DRIVER_VERSION KERNEL_RELEASE OUT

The packages hold objects (linux-objects-nvidia-*, in lib/modules/<kernel>/kernel/nvidia-<branch>srv/bits) and detached
signatures (linux-signatures-nvidia-*, bits/*.ko.sig). linux-modules-nvidia-* links the ones and appends the others when
it is installed: into the folder above bits. So they are installed, as NVIDIA's own precompiled containers do, and what
lies in that folder then is copied to OUT, to the byte.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import driver_files
from driver_files import BuildError

# How a signed module ends (include/linux/module_signature.h).
SIGNATURE_MARK = b"~Module signature appended~\n"
MODULE = re.compile(r"nvidia(-uvm|-modeset|-peermem)?\.ko(\.zst|\.xz)?")
ROOT = Path("/")


def main(argv: Sequence[str]) -> int:
    """Fill the folder; the exit status is 0, 1 with the error, or 2 on wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open", action="store_true", help="the open modules")
    parser.add_argument("version")
    parser.add_argument("kernel")
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args(argv)
    branch = f"{chosen.version.partition('.')[0]}-server{'-open' if chosen.open else ''}"
    return driver_files.end(lambda: collect(branch, chosen.kernel, chosen.out, ROOT))


def collect(branch: str, kernel: str, out: Path, root: Path) -> None:
    """Install the packages and copy the modules they make; raises BuildError, or what the package tool's failure is."""
    package = f"linux-modules-nvidia-{branch}-{kernel}"
    check_offered(package, branch)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", package, f"linux-signatures-nvidia-{kernel}"]
    subprocess.run(install, check=True, env=environment)
    made = [file for folder in folders(package, branch, kernel, root) for file in modules(folder)]
    if not made:
        raise BuildError(
            f"{package} is installed, and no modules lie below {root / 'lib/modules' / kernel / 'kernel'}/nvidia-*",
            "See what its installation said above: they are linked then",
        )
    out.mkdir(parents=True, exist_ok=True)
    for file in made:
        shutil.copyfile(file, out / file.name)
        check_signed(out / file.name, kernel)


def check_offered(package: str, branch: str) -> None:
    """Raise BuildError where no package source has the package, with the kernels for which they have one."""
    prefix = f"linux-modules-nvidia-{branch}-"
    names = output(["apt-cache", "pkgnames", prefix]).split()
    if package not in names:
        kernels = sorted(name[len(prefix) :] for name in names if name[len(prefix) :][:1].isdigit())
        raise BuildError(
            f"the package sources have no {package}; for {branch} they have kernels {', '.join(kernels) or 'none'}",
            "Canonical makes them for kernels in the archive only: give the build one of these, or build the modules",
        )


def folders(package: str, branch: str, kernel: str, root: Path) -> list[Path]:
    """Return where the packages of this branch have their files, one or more folders named nvidia-*."""
    packages = [package, package.replace("linux-modules-", "linux-objects-")]
    installed = output(["dpkg-query", "--show", "--showformat=${Package}\\n", "linux-*-nvidia-*"]).split()
    listed = output(["dpkg-query", "--listfiles", *(name for name in packages if name in installed)])
    found = re.findall(rf"^(?:/usr)?/lib/modules/{re.escape(kernel)}/kernel/(nvidia-[^/\n]+)", listed, re.MULTILINE)
    places = [root / "lib/modules" / kernel / "kernel" / name for name in dict.fromkeys(found)]
    return [place for place in places if place.is_dir()]


def modules(folder: Path) -> list[Path]:
    """Return the driver's modules in a folder; those of bits/ are not whole yet."""
    return sorted(file for file in folder.iterdir() if MODULE.fullmatch(file.name))


def check_signed(file: Path, kernel: str) -> None:
    """Raise BuildError for a module without a signature; of a packed one `nvidia-driver build --modules` tells."""
    if file.suffix == ".ko" and not file.read_bytes().endswith(SIGNATURE_MARK):
        raise BuildError(
            f"{file.name} has no signature",
            f"See that linux-signatures-nvidia-{kernel} has one for this driver; without it no node that enforces "
            "signatures loads the module",
        )


def output(command: Sequence[str]) -> str:
    """Return what a command writes to standard output."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
