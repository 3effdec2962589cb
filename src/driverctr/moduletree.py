"""The tree under /lib/modules that modprobe reads, here and in a chroot to the driver root."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.facts import hostroot, modules, mounttable
from driverctr.facts.hostroot import HostRoot, Reach
from driverctr.facts.mounttable import Mount
from driverctr.kmod import Kmod
from driverctr.mounts.syscalls import MS_BIND, MS_REC, Syscalls
from driverctr.paths import Paths

OURS = "updates/driverctr"
"""depmod prefers updates/ over all else (depmod.d(5), default search order)."""

HOST_INDEX = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
WANTED_FROM_HOST = ("i2c-core", "ipmi_msghandler", "ipmi_devintf", "video", "drm")
"""What NVIDIA's container loads first, and what nvidia and nvidia-modeset need of the kernel's own modules."""


ASIDE = "mnt/driverctr/host"
"""Where the host's /lib/modules goes if the user mounted it over ours, so that ours can be written."""


def host_place(paths: Paths, kernel_release: str) -> HostRoot | None:
    """Where the host's own module tree for a kernel release can be read, or None where it is not visible."""
    mounts = mounttable.read(paths.root)
    candidates = [HostRoot(paths.root / ASIDE, Reach.MOUNT), *hostroot.host_roots(paths.root)]
    for place in candidates:
        tree = place.path / "lib/modules" / kernel_release
        own_layer = place.reach is Reach.OWN and not _is_mounted(mounts, paths, kernel_release)
        if not own_layer and (tree / "modules.builtin").is_file():
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


def _is_mounted(mounts: Sequence[Mount], paths: Paths, kernel_release: str) -> bool:
    folders = (paths.modules_tree(kernel_release), paths.root / "lib/modules")
    return any(mounttable.layers(mounts, folder.resolve()) for folder in folders)


def assemble(
    paths: Paths,
    kernel_release: str,
    ours: Mapping[str, Path],
    host: HostRoot | None,
    kmod: Kmod,
) -> list[str]:
    """Put our modules and the host's that they need into one indexed tree; returns the host modules to load first.

    What is loaded or built in already is not needed from the host. Raises DriverError (load-failed) where the tree
    cannot be written.
    """
    tree = paths.modules_tree(kernel_release)
    first = [name for name in WANTED_FROM_HOST if not modules.is_available(paths, name)]
    try:
        changed = _place_ours(paths, tree / OURS, ours)
        found = _place_host(tree, host, kernel_release, first, kmod) if host is not None else set()
    except OSError as error:
        raise DriverError(
            Code.LOAD_FAILED,
            f"{tree} cannot be written: {error.strerror or error}",
            "Leave /lib/modules of the container writable; the host's is read through --pid=host",
        ) from error
    if changed or found or not (tree / "modules.dep.bin").is_file():
        kmod.index(kernel_release, paths.root)
    return [name for name in first if name in found]


def _place_ours(paths: Paths, folder: Path, ours: Mapping[str, Path]) -> bool:
    """Link our modules where the driver root shows them too, else copy; True if anything changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = False
    for stale in folder.glob("*.ko*"):
        if stale.name not in {file.name for file in ours.values()}:
            stale.unlink()
            changed = True
    for file in ours.values():
        changed |= _place(paths, file, folder / file.name)
    return changed


def _place(paths: Paths, file: Path, target: Path) -> bool:
    """A relative link on our root's own filesystem, else a copy: a mounted folder is not part of the driver root."""
    if file.stat().st_dev == paths.root.stat().st_dev:
        wanted = os.path.relpath(file, target.parent)
        if target.is_symlink() and str(target.readlink()) == wanted:
            return False
        target.unlink(missing_ok=True)
        target.symlink_to(wanted)
        return True
    if target.is_file() and not target.is_symlink() and _same(file, target):
        return False
    staged = target.with_name(f".{target.name}.new")
    shutil.copy2(file, staged)
    staged.replace(target)
    return True


def _same(one: Path, other: Path) -> bool:
    first, second = one.stat(), other.stat()
    return (first.st_size, int(first.st_mtime)) == (second.st_size, int(second.st_mtime))


def _place_host(tree: Path, host: HostRoot, kernel_release: str, names: Sequence[str], kmod: Kmod) -> set[str]:
    """Copy host modules and what they need into the tree; returns the names found."""
    host_tree = host.path / "lib/modules" / kernel_release
    for index in HOST_INDEX:
        if (host_tree / index).is_file() and not (tree / index).is_file():
            shutil.copyfile(host_tree / index, tree / index)
    found = set()
    for name in names:
        files = kmod.dependencies(name, kernel_release, host.path)
        for file in files:
            relative = str(file).split(f"/lib/modules/{kernel_release}/", 1)[-1]
            target = tree / relative
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(host_tree / relative, target)
        if files:
            found.add(name)
    return found
