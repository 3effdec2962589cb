"""The host's own root as seen from our container, and paths resolved inside it."""

import errno
import os
from enum import StrEnum
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.records import frozen

MAX_LINKS = 40
"""How many links one path may hold, as the kernel counts them (include/linux/namei.h MAXSYMLINKS)."""

ASIDE = "mnt/driverctr/host"
"""Where the host's /lib/modules goes if the user mounted it over ours, so that ours can be written."""

MODULES = Path("/lib/modules")


class Reach(StrEnum):
    """How we come to see the host's files."""

    PROCESS = "process 1's root"
    MOUNT = "folders mounted from the host"
    OWN = "our own root"


@frozen
class HostRoot:
    """A folder below which the host's files appear under the names the host gives them.

    Where that folder has the host's /lib/modules alone, everything else, and what links there lead to, is in `others`.
    """

    path: Path
    reach: Reach
    others: Path | None = None

    def resolve(self, path: Path) -> Path:
        """Where `path`, as the host names it, lies for us; raises DriverError as `resolve` does."""
        others = self.others or self.path
        return resolve(self.path if path.is_relative_to(MODULES) else others, path, others)

    def inside(self, path: Path) -> Path:
        """How the host names a path that `resolve` returned."""
        root = self.path if path.is_relative_to(self.path) or self.others is None else self.others
        return Path("/") / path.relative_to(root)


def process_root(root: Path = Path("/")) -> HostRoot | None:
    """The root of process 1, where it is the host's: in a mount namespace that is not ours, with modules in it.

    In ours it is the host's too for who was chrooted into the driver root.

    Without hostPID process 1 is ourselves, or under a shared pod namespace the pause process, whose root is bare.
    """
    proc = root / "proc"
    try:
        is_ours = (proc / "1/ns/mnt").readlink() == (proc / "self/ns/mnt").readlink()
        if is_ours and (not is_driver_root(root) or os.path.samestat(root.stat(), (proc / "1/root").stat())):
            return None
        found = proc / "1/root"
        return HostRoot(found, Reach.PROCESS) if resolve(found, MODULES).is_dir() else None
    except (OSError, DriverError):
        return None


def is_driver_root(root: Path) -> bool:
    """Whether our root is what process 1 has at /run/nvidia/driver: in the container itself it is that as well."""
    try:
        return os.path.samestat(root.stat(), (root / "proc/1/root/run/nvidia/driver").stat())
    except OSError:
        return False


def host_roots(root: Path = Path("/")) -> tuple[HostRoot, ...]:
    """Where the host's files may be found, the surest first.

    /run/host is where SLES asks for the host's module folder; our own root shows what a user mounted in place, less the
    module folder once that was set aside.
    """
    found: list[HostRoot] = []
    process = process_root(root)
    if process is not None:
        found.append(process)
    if (root / "run/host").is_dir():
        found.append(HostRoot(root / "run/host", Reach.MOUNT))
    if (root / ASIDE / "lib/modules").is_dir():
        found.append(HostRoot(root / ASIDE, Reach.MOUNT, others=root))
    return (*found, HostRoot(root, Reach.OWN))


def resolve(root: Path, path: Path, others: Path | None = None) -> Path:
    """Follow every link of `path` inside `root`, absolute ones too; `..` stops at the root, as in a chroot.

    Absolute links lead into `others` where that is given. Raises DriverError (node-file) where a part is missing,
    unreadable, or the links go in a circle.
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
            root, done = others or root, []
        pending.extend(part for part in reversed(target.parts) if part != "/")
    return root.joinpath(*done)
