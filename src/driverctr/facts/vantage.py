"""From where we look at the node: in the driver container, or in the driver root that the host sees of it."""

from pathlib import Path

from driverctr.facts import hostroot
from driverctr.paths import Paths


def find(root: Path = Path("/")) -> Paths:
    """The paths of the node as we see them.

    `chroot /run/nvidia/driver driverctr status` runs with our image as its root, and without /run/nvidia in it: the
    driver root never holds itself. Process 1 has that folder, be it the host's or, with a /proc of the container's own
    PID namespace, the container's (proc_pid_root(5)).
    """
    own = Paths(root)
    if _is_used(own):
        return own
    return Paths(root, beside=root / "proc/1/root") if hostroot.is_driver_root(root) else own


def _is_used(paths: Paths) -> bool:
    """Whether a start was here, or lives; a container's own /run/nvidia is a folder, if an empty one, in any case."""
    return any(path.exists() for path in (paths.own_run, paths.pid_file, paths.run / "validations"))
