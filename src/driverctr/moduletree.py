"""The tree under /lib/modules that modprobe reads, here and in a chroot to the driver root."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.facts import installed, kernel, modules, mounttable
from driverctr.facts.hostroot import ASIDE, HostRoot, host_roots
from driverctr.hashing import OURS, Hashes
from driverctr.kmod import Kmod
from driverctr.mounts.syscalls import MS_BIND, MS_REC, Syscalls
from driverctr.paths import Paths

INDEX = "modules.dep.bin"
"""What modprobe looks names up in (modules.dep.bin of depmod(8))."""

HOST_INDEX = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
WANTED_FROM_HOST = ("i2c-core", "ipmi_msghandler", "ipmi_devintf", "video", "drm")
"""What NVIDIA's container loads first, and what nvidia and nvidia-modeset need of the kernel's own modules on most."""


def host_place(paths: Paths, kernel_release: str) -> HostRoot | None:
    """Where the host's own module tree for a kernel release can be read, or None where it is not visible."""
    mounts = mounttable.of_container(paths)
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
    ours: Mapping[Path, str],
    host: HostRoot | None,
    kmod: Kmod,
    hashes: Hashes,
    needed: Sequence[str] = (),
    usual: Sequence[str] = WANTED_FROM_HOST,
) -> tuple[str, ...]:
    """Put our modules and the host's that they need into one indexed tree; returns the host modules to load first.

    `ours` are files and the SHA-256 that each must have, `needed` the host's modules that they name, `usual` those that
    are loaded first whatever they name. What is loaded or built in already is not needed from the host. Raises
    DriverError: load-failed, no-space where the tree cannot be written, no-modules where a file of ours is gone, or not
    the one described.
    """
    tree = paths.modules_tree(kernel_release)
    builtin = kernel.builtin_modules(kernel_release, (host,)) if host is not None else frozenset()
    wanted = {modules.kernel_name(name): name for name in (*needed, *usual)}
    first = [name for known, name in wanted.items() if known not in builtin and not modules.is_available(paths, name)]
    try:
        _place_ours(paths, tree, ours, hashes)
        found = _place_host(tree, host, kernel_release, first, kmod) if host is not None else set()
    except OSError as error:
        if str(error.filename) in map(str, ours):
            raise DriverError(Code.NO_MODULES, f"{error.filename}: {error.strerror}") from error
        full = error.errno in files.FULL
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
    return tuple(name for name in first if name in found)


def copy_of(paths: Paths, kernel_release: str, file: Path) -> Path | None:
    """The copy of a module in our tree, if there is one of its size: that is loaded, so that is to be hashed."""
    target = paths.modules_tree(kernel_release) / OURS / file.name
    try:
        same = target.stat(follow_symlinks=False).st_size == file.stat().st_size
    except OSError:
        return None
    return target if same and not target.is_symlink() else None


def _room_needed(ours: Iterable[Path]) -> str:
    """The remedy for a full disk: copies of our modules, and an index of them."""
    needed = sum(file.stat().st_size for file in ours) + (8 << 20)
    return f"Free {needed >> 20} MB there"


def _place_ours(paths: Paths, tree: Path, ours: Mapping[Path, str], hashes: Hashes) -> None:
    """Link our modules where the driver root shows them too, else copy; each is then the file that is described.

    The index goes first: a start that is killed half-way must not leave one that the next would believe.
    """
    folder = tree / OURS
    folder.mkdir(parents=True, exist_ok=True)
    stale = [path for path in folder.glob("*.ko*") if path.name not in {file.name for file in ours}]
    missing = [file for file, sha256 in ours.items() if not _is_placed(paths, file, sha256, folder / file.name, hashes)]
    if stale or missing:
        files.remove(tree / INDEX, *stale)
    for file in missing:
        _place(paths, file, folder / file.name)
        if hashes.of(file) != ours[file]:  # known from before, unless the file was changed since
            files.remove(folder / file.name)
            raise DriverError(Code.NO_MODULES, f"{file} is not the file its manifest describes")


def _links(paths: Paths, file: Path) -> bool:
    """On our root's own filesystem a link serves; a mounted folder is not part of the driver root."""
    return file.stat().st_dev == paths.root.stat().st_dev


def _is_placed(paths: Paths, file: Path, sha256: str, target: Path, hashes: Hashes) -> bool:
    """A copy is hashed in place of what it was copied from: no byte twice."""
    if _links(paths, file):
        linked = target.is_symlink() and str(target.readlink()) == os.path.relpath(file, target.parent)
        return linked and hashes.of(file) == sha256
    same = target.is_file() and not target.is_symlink() and target.stat().st_size == file.stat().st_size
    return same and hashes.of(target) == sha256


def _place(paths: Paths, file: Path, target: Path) -> None:
    """A relative link or a copy."""
    if _links(paths, file):
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(file, target.parent))
    else:
        files.copy_atomic(file, target)


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
