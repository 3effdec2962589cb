"""The mount table of a process, as proc_pid_mountinfo(5) describes it."""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from driverctr.paths import Paths
from driverctr.records import frozen


@frozen
class Mount:
    """One mount: a line of mountinfo; `root` is the folder of the file system that is mounted at `target`."""

    id: int
    parent: int
    st_dev: int
    root: str
    target: str
    options: str
    shared: int | None
    master: int | None
    unbindable: bool
    fstype: str
    source: str

    @property
    def propagation(self) -> str:
        """How mount events travel, in the words of mount(8)."""
        if self.unbindable:
            return "unbindable"
        if self.shared is not None:
            return "shared" if self.master is None else "shared and slave"
        return "private" if self.master is None else "slave"


def read(root: Path = Path("/"), process: str = "self", near: Path | None = None) -> tuple[Mount, ...]:
    """The mounts a process sees, in the kernel's order; raises OSError where its table cannot be read.

    Those `near` a path, free of links, are the ones on it, above it and below it: a node has hundreds of others.
    """
    return read_file(root / "proc" / process / "mountinfo", near)


def of_container(paths: Paths) -> tuple[Mount, ...]:
    """The mounts of the driver container, from wherever we look at it; raises OSError as `read` does."""
    return read(paths.root) if paths.mounts is None else read_file(paths.mounts)


def read_file(table: Path, near: Path | None = None) -> tuple[Mount, ...]:
    """The mounts of such a table; raises OSError where it cannot be read."""
    lines = [line for line in table.read_bytes().split(b"\n") if line]
    if near is not None:
        path = os.fsencode(near)
        lines = [line for line in lines if _is_near(line.split(b" ", 5)[4], path)]
    return tuple(parse_line(line.decode(errors="surrogateescape")) for line in lines)


def _is_near(target: bytes, path: bytes) -> bool:
    """Whether one may lie in the other; a target with a sign that the kernel writes otherwise may be anything."""
    folder = target.rstrip(b"/") + b"/"
    return path.startswith(folder) or folder.startswith(path + b"/") or b"\\" in target


@lru_cache(maxsize=2048)
def parse_line(line: str) -> Mount:
    """One line: id, parent, device, root, target, options, optional fields, a dash, type, source, super options.

    A start reads the table many times, and most of its lines are the same each time.
    """
    before, _, after = line.partition(" - ")
    mount_id, parent, device, root, target, options, *optional = before.split(" ")
    fstype, source, *_ = after.split(" ")
    major, _, minor = device.partition(":")
    tags = {name: value for name, _, value in (tag.partition(":") for tag in optional)}
    return Mount(
        id=int(mount_id),
        parent=int(parent),
        st_dev=_device_number(int(major), int(minor)),
        root=_unescape(root),
        target=_unescape(target),
        options=options,
        shared=int(tags["shared"]) if "shared" in tags else None,
        master=int(tags["master"]) if "master" in tags else None,
        unbindable="unbindable" in tags,
        fstype=fstype,
        source=_unescape(source),
    )


def _device_number(major: int, minor: int) -> int:
    """The number stat(2) shows: what os.makedev gives, which knows glibc's layout."""
    return os.makedev(major, minor)


def _unescape(text: str) -> str:
    """The kernel writes blank, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text) if "\\" in text else text


def visible(mounts: Sequence[Mount], path: Path) -> Mount | None:
    """The mount a look-up of the path ends in; None for a table without any root above it.

    The path must be free of links. A mount on the root of another hides what lies below that one, and of two mounts
    on the same parent the one nearer to the root hides the other: the look-up meets it first.
    """
    ids = {mount.id for mount in mounts}
    mounts = [mount for mount in mounts if _inside(str(path), mount.target)]
    tops = [m for m in mounts if m.parent not in ids or m.parent == m.id]
    if not tops:
        return None
    current = max(tops, key=lambda mount: len(mount.target))
    while True:
        below = [m for m in mounts if m.parent == current.id and m.id != current.id]
        if not below:
            return current
        current = min(below, key=lambda mount: len(mount.target))


def is_mounted(root: Path, folder: Path) -> bool:
    """Whether a folder is another filesystem's than the container's own root, and so outlives it."""
    try:
        path = folder.resolve()
        place = visible(read(root, near=path), path)
    except OSError:
        return False
    return place is not None and place.target != "/"


def layers(mounts: Sequence[Mount], target: Path) -> tuple[Mount, ...]:
    """The mounts stacked on a folder, the lowest first; empty where it is no mount point."""
    by_id = {mount.id: mount for mount in mounts}
    stack: list[Mount] = []
    current = visible(mounts, target)
    while current is not None and current.target == str(target):
        stack.insert(0, current)
        current = by_id.get(current.parent) if current.parent != current.id else None
    return tuple(stack)


def below(mounts: Sequence[Mount], target: Path) -> tuple[Mount, ...]:
    """The mounts inside what a look-up of the folder shows, at any depth; not the one on the folder itself."""
    top = visible(mounts, target)
    if top is None:
        return ()
    inside: list[Mount] = []
    known = {top.id}
    while found := [m for m in mounts if m.parent in known and m.id not in known]:
        inside += found
        known |= {mount.id for mount in found}
    return tuple(m for m in inside if m.target != str(target) and _inside(m.target, str(target)))


def _inside(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies in it; asked so often that pathlib's answer takes too long."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
