"""From where we look at the node: in the driver container, or from elsewhere at it."""

import os
from pathlib import Path

from driverctr import pidlock
from driverctr.facts import hostroot
from driverctr.paths import Paths


def find(root: Path = Path("/")) -> Paths:
    """The paths of the node as the driver container sees them, whose device nodes, settings and store are its own.

    From elsewhere (another container, or the host: `chroot /run/nvidia/driver driverctr status`) they are found through
    the root of its process (proc_pid_root(5)). Where it is dead, or not to be seen, our own root has to do.
    """
    paths = _of(root)
    pid = pidlock.holder(paths.pid_file, paths.proc / "locks")
    if pid is None:
        return paths
    process = paths.proc / str(pid)
    try:
        is_ours = paths.beside is None and os.path.samestat(root.stat(), (process / "root").stat())
    except OSError:
        return paths
    return paths if is_ours else Paths(process / "root", mounts=process / "mountinfo")


def of_image(root: Path = Path("/")) -> Paths:
    """The same from the driver root alone: another container has an image of its own, and asks what a start of it would
    do here."""
    return find(root) if _of(root).beside is not None else Paths(root)


def _of(root: Path) -> Paths:
    """By what lies in our own root.

    The driver root has no /run/nvidia in it, since it never holds itself. Process 1 has that folder, be it the host's
    or, with a /proc of the container's own PID namespace, the container's.
    """
    own = Paths(root)
    if any(path.exists() for path in (own.own_run, own.pid_file, own.run / "validations")):
        return own
    return Paths(root, beside=root / "proc/1/root") if hostroot.is_driver_root(root) else own
