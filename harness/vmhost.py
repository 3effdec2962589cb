"""The root file system of the host in the virtual machine: a minimal Debian, packed once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import apt, cache, proc

IMAGES = Path(__file__).resolve().parent.parent / "images"
VM_HOST = IMAGES / "vm-host"
# As much as an image takes twice, unpacked and as an archive, and more.
SCRATCH_MB = 4096
KEPT_MB = 512
# Nothing in the guest reads these, and each file costs time when the root is packed.
LEFT_OUT = ("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*")


@dataclass(frozen=True)
class Root:
    """The packed root and the busybox for the initramfs, both of the same Debian."""

    disk: Path
    busybox: Path


def packages() -> list[str]:
    """Return the packages the root is made of, in the order of the list in images/vm-host."""
    lines = (VM_HOST / "packages").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def root() -> Root:
    """Return the root file system, made with mmdebstrap if the cache has none for these packages and sources."""
    sources = apt.sources()
    made = cache.entry("vm-root", [apt.SUITE, sources, *LEFT_OUT, *packages()], lambda to: _make(to, sources))
    return Root(disk=made / "root.erofs", busybox=made / "busybox")


def pack(tree: Path, disk: Path) -> None:
    """Pack a folder as an erofs image; not compressed, since software emulation pays for each byte unpacked."""
    proc.run([proc.need("mkfs.erofs", "erofs-utils"), "--quiet", disk, tree])


def folder_disk(tree: Path) -> Path:
    """Return a folder packed as an erofs image, kept in the cache until a file's size or time in it changes."""
    key: list[cache.KeyPart] = [str(tree), cache.listing(tree)]
    return cache.entry("vm-disk", key, lambda to: pack(tree, to / "disk.erofs")) / "disk.erofs"


def empty_disk() -> Path:
    """Return a file of which most is a hole, formatted as ext4 without a journal: nobody looks at it after a crash."""
    name = "disk.ext4"
    made = cache.entry("vm-scratch", [SCRATCH_MB], lambda to: _format(to / name, SCRATCH_MB, "-O", "^has_journal"))
    return made / name


def kept_disk(disk: Path) -> Path:
    """Return the file itself, formatted as ext4 unless it is there; a machine may lose its power at any moment."""
    if not disk.exists():
        _format(disk, KEPT_MB)
    return disk


def _format(disk: Path, megabytes: int, *options: str) -> None:
    proc.run([proc.need("mkfs.ext4", "e2fsprogs"), "-q", "-m", "0", *options, disk, f"{megabytes}M"])


def _make(to: Path, sources: str) -> None:
    tree = to / "tree"
    listed = to / "sources.list"
    listed.write_text(sources)
    proc.run(
        [
            proc.need("mmdebstrap", "mmdebstrap"),
            "--quiet",
            "--mode=root",
            "--variant=essential",
            "--aptopt=Acquire::Languages none",
            "--aptopt=APT::Install-Recommends false",
            *(f"--dpkgopt=path-exclude=/{pattern}" for pattern in LEFT_OUT),
            f"--include={','.join(packages())}",
            apt.SUITE,
            tree,
            listed,
        ],
        timeout=1800,
    )
    shutil.copy2(tree / "bin/busybox", to / "busybox")
    pack(tree, to / "root.erofs")
    shutil.rmtree(tree)
