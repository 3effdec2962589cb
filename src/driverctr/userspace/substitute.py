"""The userspace of another version in place of our own: in our mount namespace, and in the tree that neighbours see.

Each folder that holds a file of either userspace is put together anew: what is in ours and belongs to no driver, and
the other version's files. It is a copy, so that it works on every storage driver, however deeply stacked, and what was
hashed is what is used. It lies in memory, for exactly as long as something shows it: a driver root that outlives our
container keeps it, and nothing of our own root is changed. Bound over ours it serves all programs that we start.
"""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from driverctr import files
from driverctr.deferred import shutil
from driverctr.errors import Code, DriverError
from driverctr.facts import mounttable
from driverctr.facts.mounttable import Mount
from driverctr.firmware import FOLDER as FIRMWARE
from driverctr.mounts import propagation
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

    @property
    def place(self) -> Path:
        """Where it is put together, out of everyone's sight."""
        return self.paths.former_userspace

    def put(self, ours: Listing, theirs: Listing, copy_out: CopyOut) -> dict[str, Path]:
        """What stands in place of ours from now on, by its path below the root.

        Firmware is not bound over ours: it is the kernel that reads it, through the driver root. The propagation of our
        namespace must be settled. Raises DriverError (no-space, mount-failed, what `copy_out` raises); then nothing is
        left.
        """
        try:
            self.take_back()
            self.place.mkdir(parents=True, exist_ok=True)
            try:
                self.calls.mount("tmpfs", self.place, 0, "tmpfs", "mode=0755")
                folders = self._assemble(ours, theirs, copy_out)
                self._bind([folder for folder in folders if not _is_firmware(self.paths.root, folder)])
                self._index_libraries()
            except BaseException:
                self.take_back()
                raise
        except OSError as error:
            full = error.errno in files.FULL
            raise DriverError(
                Code.NO_SPACE if full else Code.MOUNT_FAILED,
                f"the userspace of {theirs.driver_version} cannot be put in place of ours: {error}",
                f"It lies in memory: leave it {2 * theirs.size >> 20} MB" if full else "",
            ) from error
        return {folder: self.place / folder for folder in (*folders, LIBRARY_CACHE)}

    def _assemble(self, ours: Listing, theirs: Listing, copy_out: CopyOut) -> list[str]:
        """Put the folders together; returns their names."""
        folders = outermost({os.path.dirname(item.path) for item in (*ours.items, *theirs.items)})  # noqa: PTH120  # names, a thousand of them
        left_out = {self.paths.root / item.path for item in ours.items}
        for folder in folders:
            _copy_folder(self.paths.root / folder, self.place / folder, left_out)
        for item in theirs.items:
            target = self.place / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if item.link:
                target.symlink_to(item.link)
            else:
                target.unlink(missing_ok=True)
                copy_out(item, target)
                target.chmod(item.mode)
        return folders

    def _bind(self, folders: Sequence[str]) -> None:
        for folder in folders:
            target = self.paths.root / folder
            target.mkdir(parents=True, exist_ok=True)
            self.calls.mount(self.place / folder, target, MS_BIND)

    def _index_libraries(self) -> None:
        """The cache by which programs, and the container toolkit, find the libraries; ld.so takes no other file."""
        cache = self.place / LIBRARY_CACHE
        cache.parent.mkdir(parents=True, exist_ok=True)
        self.runner.run(["ldconfig", "-X", "-C", cache])
        (self.paths.root / LIBRARY_CACHE).touch()
        self.calls.mount(cache, self.paths.root / LIBRARY_CACHE, MS_BIND)

    def take_back(self) -> None:
        """Our own userspace serves again: what is bound out of the place goes, then the place. Raises OSError.

        A driver root that shows it goes on to do so.
        """
        mounts = mounttable.read(self.paths.root)
        for layer in mounttable.layers(mounts, self.place):
            for mount in reversed(mounts):
                if mount.st_dev == layer.st_dev and not _is_elsewhere(self.paths, mount):
                    self.calls.umount(mount.target)
            self.calls.umount(self.place)


def uncover(paths: Paths, runner: Runner, calls: Syscalls | None = None) -> None:
    """Have our own userspace serve again where a start that was killed has left another's over it, in mounts like ours.

    Before anything looks at the image's. Raises DriverError (mount-failed).
    """
    kernel = calls or Syscalls()
    if not mounttable.layers(mounttable.read(paths.root), paths.former_userspace):
        return
    runner.log.warning("a start that was killed has left another version's userspace over ours: it is taken away")
    propagation.settle(paths, kernel)
    try:
        Substitute(paths, runner, kernel).take_back()
    except OSError as error:
        raise DriverError(
            Code.MOUNT_FAILED, f"another version's userspace cannot be taken off ours: {error}", "Make a new container"
        ) from error


def outermost(folders: Collection[str]) -> list[str]:
    """Those that lie in no other."""
    return sorted(one for one in folders if not any(one.startswith(f"{other}/") for other in folders))


def _is_elsewhere(paths: Paths, mount: Mount) -> bool:
    """Whether a mount is in the driver root, or where trees are put together, and not over our own folders."""
    return any(Path(mount.target).is_relative_to(folder) for folder in (paths.run, paths.former_userspace.parent))


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
