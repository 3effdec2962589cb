"""The tree that neighbours get to see: a private copy of our root, put together out of everyone's sight."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from driverctr.facts import mounttable
from driverctr.facts.mounttable import Mount
from driverctr.mounts.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    Syscalls,
)

ALWAYS = ("/proc", "/sys", "/dev")
"""Mounts a chroot needs, and the device plugin (/dev) and the validator (/sys/bus/pci) read in the driver root."""

WHERE_MOUNTED = (
    "/lib/modules",
    "/run/nvidia-persistenced",
    "/run/nvidia-fabricmanager",
    "/run/nvidia-topologyd",
    "/etc/resolv.conf",
    "/etc/hosts",
)
"""Carried along if a mount hides what our root has there: modules for `chroot modprobe`, the daemons' sockets for the
container toolkit, names for whoever chroots. All other mounts stay out, so that no secret can slip in."""

SECRETS = ("run/secrets", "var/run/secrets", "drivers")
"""Covered even when they lie in the image or were written into the container: tokens, entitlements, user config."""


@contextmanager
def staged(
    own_root: Path,
    place: Path,
    kernel: Syscalls,
    mounts: Sequence[Mount],
    substitutes: Mapping[str, Path] | None = None,
) -> Iterator[Path]:
    """Our own root at `place` for the length of the block, private throughout; raises OSError.

    The bind of `/` is not recursive: what other mounts hide in our root is itself again in the copy. `substitutes` are
    shown in place of what lies there, by path below the root.
    """
    clear(place, kernel)
    place.mkdir(parents=True, exist_ok=True)
    kernel.mount(own_root, place, MS_BIND)
    try:
        kernel.mount(None, place, MS_PRIVATE)
        for path, source in (substitutes or {}).items():
            _bind_into(place, source, path, kernel)
        for path in (*ALWAYS, *_mounted(own_root, mounts, WHERE_MOUNTED)):
            _bind_into(place, own_root / path.lstrip("/"), path, kernel)
        for name in SECRETS:
            _cover(place, name, kernel)
        kernel.mount(None, place, MS_PRIVATE | MS_REC)
        yield place
    finally:
        clear(place, kernel)


def clear(place: Path, kernel: Syscalls) -> None:
    """Take away whatever is mounted at a staging place, this process's or that of one killed in our namespace.

    Private first: the place may still be a peer of /run/nvidia, whose mounts must not go with it.
    """
    if not place.is_dir():
        return
    while True:
        try:
            kernel.mount(None, place, MS_PRIVATE | MS_REC)
            kernel.umount(place)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return


def _mounted(own_root: Path, mounts: Sequence[Mount], paths: Sequence[str]) -> Iterator[str]:
    """Those paths that are a mount or hold one, without links (mount points have none)."""
    for path in paths:
        real = (own_root / path.lstrip("/")).resolve()
        if real.exists() and (mounttable.layers(mounts, real) or mounttable.below(mounts, real)):
            yield f"/{real.relative_to(own_root)}"


def _bind_into(place: Path, source: Path, path: str, kernel: Syscalls) -> None:
    """Bind a folder or file of ours to the same name in the copy, which may lack it if a mount brought its parent."""
    target = place / path.lstrip("/")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    kernel.mount(source, target, MS_BIND | MS_REC)


def _cover(place: Path, name: str, kernel: Syscalls) -> None:
    """Hide a folder of the copy beneath an empty one; a link is left, as mount(2) would follow it into our own root."""
    target = place
    for part in Path(name).parts:
        target = target / part
        if target.is_symlink():
            return
    if target.is_dir():
        flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
        kernel.mount("tmpfs", target, flags, "tmpfs", "size=4k,mode=0555")
