"""Folders of the host, brought into our own mount namespace."""

import errno
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.mounts.syscalls import (
    AT_RECURSIVE,
    CLONE_FS,
    CLONE_NEWNS,
    MS_BIND,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
    OPEN_TREE_CLONE,
    Syscalls,
)

NAMESPACE = Path("/proc/1/ns/mnt")
"""The host's mount namespace where we share its process ids (hostPID, `--pid=host`)."""


def bind_from_host(
    host_path: Path,
    target: Path,
    *,
    read_only: bool = True,
    follow: bool = False,
    namespace: Path = NAMESPACE,
    calls: Syscalls | None = None,
) -> None:
    """Mount a folder of the host, with what is mounted below it, on a folder of ours.

    mount(8) on /proc/1/root binds our own folder instead, since it resolves that path first. `read_only` holds for the
    folder itself, not for mounts below it. With `follow`, mounts the host makes there later arrive too. Nothing is done
    if the folder is there already. Raises DriverError (mount-failed), also where /proc/1 is not the host.
    """
    kernel = calls or Syscalls()
    try:
        clone = _Borrower(kernel, namespace).clone(host_path)
        try:
            target.mkdir(parents=True, exist_ok=True)
            if os.path.samestat(os.fstat(clone), target.stat()):
                return
            kernel.move_mount(clone, target)
        finally:
            os.close(clone)
        kernel.mount(None, target, (MS_SLAVE if follow else MS_PRIVATE) | MS_REC)
        if read_only:
            kernel.mount(None, target, MS_REMOUNT | MS_BIND | MS_RDONLY)
    except OSError as error:
        raise DriverError(
            Code.MOUNT_FAILED,
            f"the host's {host_path} could not be mounted on {target}: {error.strerror}",
            f"Mount it into the container instead: -v {host_path}:{target}:ro"
            if error.errno != errno.ENOENT
            else f"The host has no {host_path}",
        ) from error


def unbind(target: Path, calls: Syscalls | None = None) -> None:
    """Undo `bind_from_host`; nothing is done where nothing is mounted. Raises DriverError (mount-failed)."""
    try:
        (calls or Syscalls()).umount(target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise DriverError(Code.MOUNT_FAILED, f"{target} could not be unmounted: {error.strerror}") from error


def separate(namespace: Path = NAMESPACE) -> bool:
    """Whether the process with id 1 lives in a mount namespace other than ours, so that it is the host's."""
    try:
        return namespace.readlink() != Path("/proc/self/ns/mnt").readlink()
    except OSError:
        return False


@dataclass
class _Borrower:
    """Clones a tree in another mount namespace.

    setns(2) wants a file system context of the caller's own (CLONE_FS); a thread that ends right after gives that
    without a fork, and the rest of the process never leaves our namespace.
    """

    kernel: Syscalls
    namespace: Path
    descriptor: int = -1
    error: OSError | None = field(default=None)

    def clone(self, path: Path) -> int:
        """A descriptor of a detached copy; raises OSError."""
        if not separate(self.namespace):
            raise OSError(errno.EXDEV, f"{self.namespace} is our own mount namespace or not readable (no host PIDs?)")
        thread = threading.Thread(target=self._enter_and_clone, args=(path,), name="host-mounts")
        thread.start()
        thread.join()
        if self.error is not None:
            raise self.error
        return self.descriptor

    def _enter_and_clone(self, path: Path) -> None:
        try:
            self.kernel.unshare(CLONE_FS)
            handle = os.open(self.namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.kernel.setns(handle, CLONE_NEWNS)
            finally:
                os.close(handle)
            self.descriptor = self.kernel.open_tree(path, OPEN_TREE_CLONE | AT_RECURSIVE)
        except OSError as error:
            self.error = error
