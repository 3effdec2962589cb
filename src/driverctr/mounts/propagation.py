"""How mount events travel in our own namespace: what we do must not reach the host, except below /run/nvidia."""

import errno
from collections.abc import Sequence
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.facts import mounttable
from driverctr.facts.mounttable import Mount
from driverctr.mounts.syscalls import MS_PRIVATE, MS_REC, MS_SLAVE, MS_UNBINDABLE, Syscalls
from driverctr.paths import Paths

SYS = "sys"


def settle(paths: Paths, calls: Syscalls | None = None) -> None:
    """Make `/` private, leave /run/nvidia shared, /sys as NVIDIA has it, and let the rest only receive.

    Receiving (slave), so that what a neighbour such as MOFED's container mounts on the host later still arrives.
    /sys: its sub-mounts unbindable, then itself private, so that the driver root carries the top of it only (NVIDIA's
    container: `mount --make-runbindable /sys; mount --make-private /sys`). crun shares our `/` when a volume is
    shared: then an unmount of the driver root would come back and take our own /proc. May be repeated.
    Raises DriverError (mount-failed).
    """
    kernel = calls or Syscalls()
    try:
        kernel.mount(None, paths.root, MS_PRIVATE)
        if mounttable.layers(mounttable.read(paths.root), paths.root / SYS):
            kernel.mount(None, paths.root / SYS, MS_UNBINDABLE | MS_REC)
            kernel.mount(None, paths.root / SYS, MS_PRIVATE)
        for mount in receivers(mounttable.read(paths.root), paths):
            _receive(kernel, mount)
    except OSError as error:
        raise DriverError(
            Code.MOUNT_FAILED,
            f"the propagation of our own mounts could not be set: {error.strerror}",
            "Run the container privileged" if error.errno == errno.EPERM else "",
        ) from error


def receivers(mounts: Sequence[Mount], paths: Paths) -> tuple[Mount, ...]:
    """The mounts that are to receive only: shared now, visible, neither `/`, /sys nor what carries /run/nvidia."""
    carrier = mounttable.visible(mounts, paths.run)
    return tuple(
        mount
        for mount in mounts
        if mount.shared is not None
        and mount != carrier
        and mount.target != str(paths.root)
        and not Path(mount.target).is_relative_to(paths.root / SYS)
        and not Path(mount.target).is_relative_to(paths.run)
        and mounttable.visible(mounts, Path(mount.target)) == mount
    )


def _receive(kernel: Syscalls, mount: Mount) -> None:
    """A mount that went away since the table was read needs nothing."""
    try:
        kernel.mount(None, mount.target, MS_SLAVE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
