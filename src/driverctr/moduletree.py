"""The tree under /lib/modules that modprobe reads, here and in a chroot to the driver root."""

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.facts import installed, kernel, modules, mounttable
from driverctr.facts.hostroot import ASIDE, HostRoot, host_roots
from driverctr.kmod import Kmod
from driverctr.mounts.syscalls import MS_BIND, MS_REC, Syscalls
from driverctr.paths import Paths

OURS = "updates/driverctr"
"""depmod prefers updates/ over all else (depmod.d(5), default search order)."""

INDEX = "modules.dep.bin"
"""What modprobe looks names up in (modules.dep.bin of depmod(8))."""

HOST_INDEX = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
WANTED_FROM_HOST = ("i2c-core", "ipmi_msghandler", "ipmi_devintf", "video", "drm")
"""What NVIDIA's container loads first, and what nvidia and nvidia-modeset need of the kernel's own modules."""


def host_place(paths: Paths, kernel_release: str) -> HostRoot | None:
    """Where the host's own module tree for a kernel release can be read, or None where it is not visible."""
    mounts = mounttable.read(paths.root)
    for place in host_roots(paths.root):
        tree = place.path / "lib/modules" / kernel_release
        if installed.is_hosts(paths, place, kernel_release, mounts) and (tree / "modules.builtin").is_file():
            return place
    return None


def set_aside(paths: Paths, kernel_release: str, calls: Syscalls) -> None:
    """Move a mount of the host's /lib/modules off our own folder, which the driver root shows; raises OSError."""
    mounts = mounttable.read(paths.root)
    for folder in (paths.modules_tree(kernel_release), paths.root / "lib/modules"):
        folder = folder.resolve()
        if mounttable.layers(mounts, folder):
            aside = paths.root / ASIDE / "lib/modules" / (kernel_release if folder.name == kernel_release else "")
            aside.mkdir(parents=True, exist_ok=True)
            calls.mount(folder, aside, MS_BIND | MS_REC)
            calls.umount(folder)


def assemble(
    paths: Paths,
    kernel_release: str,
    ours: Mapping[str, Path],
    host: HostRoot | None,
    kmod: Kmod,
) -> list[str]:
    """Put our modules and the host's that they need into one indexed tree; returns the host modules to load first.

    What is loaded or built in already is not needed from the host. Raises DriverError (load-failed, no-space) where the
    tree cannot be written.
    """
    tree = paths.modules_tree(kernel_release)
    builtin = kernel.builtin_modules(kernel_release, (host,)) if host is not None else frozenset()
    wanted = [name for name in WANTED_FROM_HOST if name.replace("-", "_") not in builtin]
    first = [name for name in wanted if not modules.is_available(paths, name)]
    try:
        _place_ours(paths, tree, ours)
        found = _place_host(tree, host, kernel_release, first, kmod) if host is not None else set()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DriverError(
            Code.NO_SPACE if full else Code.LOAD_FAILED,
            f"{tree} cannot be written: {error.strerror or error}",
            _room_needed(ours)
            if full
            else "Leave /lib/modules of the container writable; the host's is read through --pid=host",
        ) from error
    if found or not (tree / INDEX).is_file():
        try:
            kmod.index(kernel_release, paths.root)
        except DriverError as error:
            files.remove(tree / INDEX)  # cut short by a full disk: the next start must not believe it
            raise DriverError(
                error.code, error.message, _room_needed(ours) if error.code is Code.NO_SPACE else error.remedy
            ) from error
    return [name for name in first if name in found]


def _room_needed(ours: Mapping[str, Path]) -> str:
    """The remedy for a full disk: copies of our modules, and an index of them."""
    needed = sum(file.stat().st_size for file in ours.values()) + (8 << 20)
    return f"Free {needed >> 20} MB there"


def _place_ours(paths: Paths, tree: Path, ours: Mapping[str, Path]) -> None:
    """Link our modules where the driver root shows them too, else copy.

    The index goes first: a start that is killed half-way must not leave one that the next would believe.
    """
    folder = tree / OURS
    folder.mkdir(parents=True, exist_ok=True)
    stale = [path for path in folder.glob("*.ko*") if path.name not in {file.name for file in ours.values()}]
    missing = [file for file in ours.values() if not _is_placed(paths, file, folder / file.name)]
    if stale or missing:
        files.remove(tree / INDEX, *stale)
    for file in missing:
        _place(paths, file, folder / file.name)


def _links(paths: Paths, file: Path) -> bool:
    """On our root's own filesystem a link serves; a mounted folder is not part of the driver root."""
    return file.stat().st_dev == paths.root.stat().st_dev


def _is_placed(paths: Paths, file: Path, target: Path) -> bool:
    if _links(paths, file):
        return target.is_symlink() and str(target.readlink()) == os.path.relpath(file, target.parent)
    return target.is_file() and not target.is_symlink() and _same(file, target)


def _place(paths: Paths, file: Path, target: Path) -> None:
    """A relative link or a copy, with the time by which it is known again."""
    if _links(paths, file):
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(file, target.parent))
        return
    files.copy_atomic(file, target)
    times = file.stat()
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def _same(one: Path, other: Path) -> bool:
    first, second = one.stat(), other.stat()
    return (first.st_size, int(first.st_mtime)) == (second.st_size, int(second.st_mtime))


def _place_host(tree: Path, host: HostRoot, kernel_release: str, names: Sequence[str], kmod: Kmod) -> set[str]:
    """Copy host modules and what they need into the tree; returns the names found."""
    host_tree = host.path / "lib/modules" / kernel_release
    for index in HOST_INDEX:
        if (host_tree / index).is_file() and not (tree / index).is_file():
            files.copy_atomic(host_tree / index, tree / index)
    found = set()
    for name in names:
        needed = kmod.dependencies(name, kernel_release, host.path)
        for file in needed:
            relative = str(file).split(f"/lib/modules/{kernel_release}/", 1)[-1]
            target = tree / relative
            if not target.is_file():
                files.sweep(target.parent)
                files.copy_atomic(host_tree / relative, target)
        if needed:
            found.add(name)
    return found
