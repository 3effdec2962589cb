"""The host's own root as seen from our container, and paths resolved inside it."""

import errno
from enum import StrEnum
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.records import frozen

MAX_LINKS = 40
"""How many links one path may hold, as the kernel counts them (include/linux/namei.h MAXSYMLINKS)."""


class Reach(StrEnum):
    """How we come to see the host's files."""

    PROCESS = "process 1's root"
    MOUNT = "folders mounted from the host"
    OWN = "our own root"


@frozen
class HostRoot:
    """A folder below which the host's files appear under the names the host gives them."""

    path: Path
    reach: Reach

    def resolve(self, path: Path) -> Path:
        """Where `path`, as the host names it, lies for us; raises DriverError as `resolve` does."""
        return resolve(self.path, path)

    def inside(self, path: Path) -> Path:
        """How the host names a path that `resolve` returned."""
        return Path("/") / path.relative_to(self.path)


def process_root(root: Path = Path("/")) -> HostRoot | None:
    """The root of process 1, where it is the host's: in a mount namespace that is not ours, with modules in it.

    Without hostPID process 1 is ourselves, or under a shared pod namespace the pause process, whose root is bare.
    """
    proc = root / "proc"
    try:
        if (proc / "1/ns/mnt").readlink() == (proc / "self/ns/mnt").readlink():
            return None
        found = proc / "1/root"
        return HostRoot(found, Reach.PROCESS) if resolve(found, Path("/lib/modules")).is_dir() else None
    except (OSError, DriverError):
        return None


def host_roots(root: Path = Path("/")) -> tuple[HostRoot, ...]:
    """Where the host's files may be found, the surest first.

    /run/host is where SLES asks for the host's module folder; our own root shows what a user mounted in place.
    """
    found: list[HostRoot] = []
    process = process_root(root)
    if process is not None:
        found.append(process)
    if (root / "run/host").is_dir():
        found.append(HostRoot(root / "run/host", Reach.MOUNT))
    return (*found, HostRoot(root, Reach.OWN))


def resolve(root: Path, path: Path) -> Path:
    """Follow every link of `path` inside `root`, absolute ones too; `..` stops at the root, as in a chroot.

    Raises DriverError (node-file) where a part is missing, unreadable, or the links go in a circle.
    """
    pending = [part for part in reversed(path.parts) if part != "/"]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            done[-1:] = []
            continue
        here = root.joinpath(*done, part)
        try:
            target = here.readlink()
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise DriverError(
                    Code.NODE_FILE, f"{path} cannot be followed below {root}: {here}: {error.strerror}"
                ) from error
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise DriverError(Code.NODE_FILE, f"{path} cannot be followed below {root}: too many links, at {here}")
        if target.is_absolute():
            done = []
        pending.extend(part for part in reversed(target.parts) if part != "/")
    return root.joinpath(*done)
