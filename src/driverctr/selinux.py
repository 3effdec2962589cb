"""SELinux labels of the devices in the driver root: confined containers get those nodes, and may use this type only."""

import os
from collections.abc import Iterator
from pathlib import Path

from driverctr.files import read_text
from driverctr.log import Log
from driverctr.paths import Paths

TYPE = "container_file_t"
"""What containers may use (container_selinux(8)); NVIDIA's container sets it too (reference C)."""

PLAIN = f"system_u:object_r:{TYPE}:s0"
"""The label of a node that has none, as an overlay without labels leaves it."""

ATTRIBUTE = "security.selinux"
"""xattr(7)"""

ENFORCE = ("sys/fs/selinux/enforce", "proc/1/root/sys/fs/selinux/enforce")
"""Says 1 or 0 where SELinux is enabled; the host's is seen with hostPID alone, and a container may lack its own."""


def enforcing(paths: Paths) -> bool | None:
    """Whether the host enforces its policy; None where it has no SELinux, or none that we can see."""
    for name in ENFORCE:
        if text := read_text(paths.root / name):
            return text.strip() == "1"
    return None


def label_devices(paths: Paths, *, log: Log) -> None:
    """Label what lies in the driver root's /dev, where the host has SELinux; what cannot be labelled is only said.

    Of a /dev that is the host's own, mounted into our container, NVIDIA's nodes alone: the host's programs are confined
    by the labels of the others.
    """
    enforces, folder = enforcing(paths), paths.driver_root / "dev"
    if enforces is None:
        return
    failed: list[str] = []
    for path in _nodes(folder, ours_only=_is_hosts(paths, folder)):
        try:
            _label(path)
        except OSError as error:
            failed.append(f"{path}: {error.strerror}")
    if failed:
        told = f"{len(failed)} of the files in {folder} could not be labelled {TYPE} ({failed[0]})"
        worse = "; containers that SELinux confines may be refused the GPUs" if enforces else ""
        (log.warning if enforces else log.info)(told + worse)


def _label(path: Path) -> None:
    """Change the type, as `chcon -t` does, and keep user, role and level."""
    try:
        user, role, _, level = os.getxattr(path, ATTRIBUTE, follow_symlinks=False).decode().rstrip("\0").split(":", 3)
        wanted = f"{user}:{role}:{TYPE}:{level}"
    except (OSError, ValueError):
        wanted = PLAIN
    os.setxattr(path, ATTRIBUTE, wanted.encode() + b"\0", follow_symlinks=False)


def _is_hosts(paths: Paths, folder: Path) -> bool:
    try:
        return os.path.samestat(folder.stat(), (paths.proc / "1/root/dev").stat())
    except OSError:
        return False


def _nodes(folder: Path, *, ours_only: bool) -> Iterator[Path]:
    if ours_only:
        yield from (path for path in folder.rglob("nvidia*") if not path.is_symlink())
        return
    yield folder
    yield from folder.rglob("*")
