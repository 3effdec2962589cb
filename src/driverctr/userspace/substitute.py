"""The userspace of another version in place of our own: in our mount namespace, and in the tree that neighbours see.

Each folder that holds a file of either userspace is put together anew: what is in ours and belongs to no driver, and
the other version's files. It is a copy in our own root, so that it works on every storage driver, however deeply
stacked, and what was hashed is what is used. Bound over ours it serves all programs that we start; nothing of our root
itself is changed, and a crash leaves a folder that nobody looks into.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.facts import mounttable
from driverctr.firmware import FOLDER as FIRMWARE
from driverctr.mounts.syscalls import MS_BIND, Syscalls
from driverctr.paths import Paths
from driverctr.records import frozen
from driverctr.run import Runner
from driverctr.userspace.listing import Item, Listing

LIBRARY_CACHE = "etc/ld.so.cache"

CopyOut = Callable[[Item, Path], None]
"""Copies the content of a file to a path; raises DriverError, OSError."""


@frozen
class Substitute:
    """Puts another userspace in place of ours and takes it back; `calls` is where a test puts its own kernel."""

    paths: Paths
    runner: Runner
    calls: Syscalls

    def put(self, ours: Listing, theirs: Listing, copy_out: CopyOut) -> tuple[Path, dict[str, Path]]:
        """Where it was put together, and what stands in place of ours from now on, by path below the root.

        Firmware is not bound over ours: it is the kernel that reads it, through the driver root. The propagation of our
        namespace must be settled. Raises DriverError (no-space, mount-failed, what `copy_out` raises); then nothing is
        left.
        """
        root = self.paths.root
        try:
            self.paths.substitutes.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(dir=self.paths.substitutes))
            try:
                folders = self._assemble(place, ours, theirs, copy_out)
                self._bind(place, [folder for folder in folders if not _is_firmware(root, folder)])
                self._index_libraries(place)
            except BaseException:
                self.take_back(place)
                raise
        except OSError as error:
            full = error.errno in files.FULL
            raise DriverError(
                Code.NO_SPACE if full else Code.MOUNT_FAILED,
                f"the userspace of {theirs.driver_version} cannot be put in place of ours: {error}",
                f"Free {2 * theirs.size >> 20} MB in the container's own root" if full else "",
            ) from error
        return place, {folder: place / folder for folder in (*folders, LIBRARY_CACHE)}

    def _assemble(self, place: Path, ours: Listing, theirs: Listing, copy_out: CopyOut) -> list[str]:
        """Put the folders together; returns their names."""
        folders = outermost({os.path.dirname(item.path) for item in (*ours.items, *theirs.items)})  # noqa: PTH120
        left_out = {self.paths.root / item.path for item in ours.items}
        for folder in folders:
            _copy_folder(self.paths.root / folder, place / folder, left_out)
        for item in theirs.items:
            target = place / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if item.link:
                target.symlink_to(item.link)
            else:
                target.unlink(missing_ok=True)
                copy_out(item, target)
                target.chmod(item.mode)
        return folders

    def _bind(self, place: Path, folders: Sequence[str]) -> None:
        for folder in folders:
            target = self.paths.root / folder
            target.mkdir(parents=True, exist_ok=True)
            self.calls.mount(place / folder, target, MS_BIND)

    def _index_libraries(self, place: Path) -> None:
        """The cache by which programs, and the container toolkit, find the libraries; ld.so takes no other file."""
        cache = place / LIBRARY_CACHE
        cache.parent.mkdir(parents=True, exist_ok=True)
        self.runner.run(["ldconfig", "-X", "-C", cache])
        (self.paths.root / LIBRARY_CACHE).touch()
        self.calls.mount(cache, self.paths.root / LIBRARY_CACHE, MS_BIND)

    def take_back(self, place: Path) -> None:
        """Our own userspace serves again: whatever is bound out of the folder goes, then the folder. Raises OSError."""
        for mount in reversed(self._bound_from(place)):
            self.calls.umount(mount)
        shutil.rmtree(place, ignore_errors=True)

    def _bound_from(self, place: Path) -> list[str]:
        mounts = mounttable.read(self.paths.root)
        own = mounttable.visible(mounts, self.paths.root)
        inside = f"{own.root.rstrip('/') if own else ''}/{place.relative_to(self.paths.root)}/"
        return [
            mount.target for mount in mounts if own and mount.st_dev == own.st_dev and mount.root.startswith(inside)
        ]


def sweep(paths: Paths, used: Mapping[str, Path]) -> None:
    """Remove what an earlier start in this container left, once no driver root shows it any more."""
    for place in files.entries(paths.substitutes):
        if not any(path.is_relative_to(place) for path in used.values()):
            shutil.rmtree(place, ignore_errors=True)


def outermost(folders: Collection[str]) -> list[str]:
    """Those that lie in no other."""
    return sorted(one for one in folders if not any(one.startswith(f"{other}/") for other in folders))


def _is_firmware(root: Path, folder: str) -> bool:
    """Whether it lies where firmware does, by either name: /lib is a link."""
    return (root / folder).is_relative_to((root / FIRMWARE).resolve()) or folder.startswith(f"{FIRMWARE}/")


def _copy_folder(source: Path, target: Path, left_out: Collection[Path]) -> None:
    """Copy a folder with owners, modes, times and links, but for some files; one that is not there is empty."""
    target.mkdir(parents=True, exist_ok=True)
    for path in files.entries(source):
        copied = target / path.name
        if path in left_out:
            continue
        if path.is_dir() and not path.is_symlink():
            _copy_folder(path, copied, left_out)
        elif path.is_symlink():
            copied.symlink_to(path.readlink())
        elif path.is_file():
            shutil.copyfile(path, copied)
            status = path.stat()
            os.chown(copied, status.st_uid, status.st_gid)
            shutil.copystat(path, copied)
    if source.is_dir():
        status = source.stat()
        os.chown(target, status.st_uid, status.st_gid)
        shutil.copystat(source, target)
