"""A signed dnf repository with RHEL's package names: empty ones for what the test base has, and a kernel's headers."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import cache, kernels, rpmrepo, serving

# Increase it when the packages get other names or files.
FORMAT = 2
# Debian's packages of the programs that Dockerfile.rhel asks for: the test base has them from the start.
PROGRAMS = (
    "binutils",
    "ca-certificates",
    "cpio",
    "diffutils",
    "findutils",
    "gcc",
    "kmod",
    "libc6-dev",
    "libelf1",
    "libssl3",
    "libtirpc3",
    "libudev1",
    "make",
    "mount",
    "pahole",
    "patch",
    "procps",
    "python3.11",
    "tar",
    "util-linux",
    "xz-utils",
    "zstd",
)
# What Dockerfile.rhel installs: its names are real, and the packages here are empty.
NAMES = (
    "binutils",
    "ca-certificates",
    "cpio",
    "diffutils",
    "dnf-plugins-core",
    "dwarves",
    "elfutils-libelf",
    "findutils",
    "gawk",
    "gcc",
    "glibc-devel",
    "hwdata",
    "kmod",
    "libtirpc",
    "make",
    "openssl-libs",
    "patch",
    "procps-ng",
    "python3.11",
    "systemd-libs",
    "tar",
    "util-linux",
    "which",
    "xz",
    "zstd",
)
KEY_FILE = "RPM-GPG-KEY-driverctr-test"
REPOSITORY_FILE = "driverctr-test.repo"


@dataclass(frozen=True)
class Repository:
    """A folder to serve, and one with the .repo file and the key that tell dnf of it."""

    folder: Path
    files: Path


def repository(kernel: str = kernels.DEFAULT) -> Repository:
    """Return the repository with the headers of a kernel, made if the cache has none."""
    found = kernels.get(kernel)
    made = cache.entry("rhel-repository", [FORMAT, found.release, serving.URL, *NAMES], lambda to: _make(to, found))
    return Repository(made / "repository", made / "files")


def _make(to: Path, kernel: kernels.Kernel) -> None:
    key = rpmrepo.new_key(to / "key")
    with tempfile.TemporaryDirectory() as scratch:
        trees = {name: Path(scratch, name) for name in (*NAMES, "kernel-devel")}
        for tree in trees.values():
            tree.mkdir()
        packages = [rpmrepo.Package(name, "1", "1.el9", trees[name]) for name in NAMES]
        _devel_tree(trees["kernel-devel"] / "usr/src/kernels" / kernel.release, kernel)
        headers = rpmrepo.Package(f"kernel-devel-{kernel.release}", "1", "1.el9", trees["kernel-devel"])
        rpmrepo.make(to / "repository", [*packages, headers], key)
    (to / "files").mkdir()
    shutil.copy2(key.public, to / "files" / KEY_FILE)
    (to / "files" / REPOSITORY_FILE).write_text(
        "[driverctr-test]\n"
        "name=driverctr-test\n"
        f"baseurl={serving.URL}\n"
        "enabled=1\n"
        "gpgcheck=1\n"
        "repo_gpgcheck=1\n"
        f"gpgkey=file:///etc/yum.repos.d/{KEY_FILE}\n"
    )


def _devel_tree(to: Path, kernel: kernels.Kernel) -> None:
    """Make one folder of Debian's three, as kernel-devel has it: nothing in it leads out of it."""
    flavour = kernel.headers / f"usr/src/linux-headers-{kernel.release}"
    common = flavour.with_name(f"linux-headers-{kernel.release.removesuffix(kernels.FLAVOUR)}-common")
    for source in (common, flavour):
        for path in source.iterdir():
            real = (kernel.headers / "usr" / Path(*path.readlink().parts[2:])) if path.is_symlink() else path
            if real.is_dir():
                shutil.copytree(real, to / path.name, symlinks=True, dirs_exist_ok=True)
            elif not (to / path.name).exists():
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy2(real, to / path.name)
