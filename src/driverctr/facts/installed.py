"""The kernels installed on the host, by their module trees."""

from collections.abc import Sequence
from pathlib import Path

from driverctr.errors import DriverError
from driverctr.facts import hostroot, kernel, mounttable
from driverctr.facts.hostroot import HostRoot, Reach
from driverctr.facts.mounttable import Mount
from driverctr.files import entries, read_text
from driverctr.paths import Paths
from driverctr.records import frozen
from driverctr.versions import KernelRelease

Mark = tuple[tuple[int, int, int] | None, ...]
"""What stat tells of the files that come anew with another build of a kernel, or with its headers."""


@frozen
class Installed:
    """A kernel that the host could boot, and the root below which its files are found."""

    release: KernelRelease
    place: HostRoot

    @property
    def mark(self) -> Mark:
        """Changes whenever the kernel or its headers are installed anew or removed."""
        tree = Path("/lib/modules") / self.release.text
        files = (
            tree / "modules.builtin",
            tree / "build/include/generated/utsrelease.h",
            Path("/boot") / f"vmlinuz-{self.release}",
        )
        return tuple(self._stat(file) for file in files)

    def _stat(self, file: Path) -> tuple[int, int, int] | None:
        try:
            found = self.place.resolve(file).stat()
        except (OSError, DriverError):
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def is_hosts(paths: Paths, place: HostRoot, release: str, mounts: Sequence[Mount]) -> bool:
    """Whether a module tree found there is the host's, not one that our own root has made for itself."""
    return place.reach is not Reach.OWN or is_mounted(paths, release, mounts)


def is_mounted(paths: Paths, release: str, mounts: Sequence[Mount]) -> bool:
    """Whether the user mounted the host's module folder, or that of one kernel, over ours."""
    folders = (paths.modules_tree(release), paths.root / "lib/modules")
    if paths.mounts is not None:  # named as who has that root names them; a link of /proc to it reads as one to our own
        return any(mounttable.layers(mounts, Path("/") / folder.relative_to(paths.root)) for folder in folders)
    return any(mounttable.layers(mounts, folder.resolve()) for folder in folders)


def read(paths: Paths) -> tuple[Installed, ...]:
    """The kernels of the host, the newest first; none where its module folder is not visible."""
    mounts: Sequence[Mount] | None = None
    for place in hostroot.host_roots(paths.root):
        if place.reach is Reach.OWN and mounts is None:
            mounts = mounttable.of_container(paths)
        found = [
            Installed(release, place)
            for release in _releases(place)
            if mounts is None or is_hosts(paths, place, release.text, mounts)
        ]
        if found:
            return tuple(sorted(found, key=lambda each: each.release.order, reverse=True))
    return ()


def upcoming(paths: Paths, there: Sequence[Installed] | None = None) -> tuple[Installed, ...]:
    """Those that may run next and have not run: newer than the one that runs, or another build of it.

    `there` are those of the host, if they were read before.
    """
    running = read_text(paths.root / "proc/sys/kernel/osrelease") or ""
    return tuple(
        each
        for each in (read(paths) if there is None else there)
        if (
            not kernel.read_installed(paths.root, running).running
            if each.release.text == running
            else each.release.order > KernelRelease(running).order
        )
    )


def _releases(place: HostRoot) -> list[KernelRelease]:
    """Real kernels: what a removed one leaves, or a build of modules makes, has neither its own modules nor a list."""
    found = []
    try:
        trees = entries(place.resolve(Path("/lib/modules")))
    except (OSError, DriverError):
        return []
    for tree in trees:
        try:
            release = KernelRelease(tree.name)
            real = (tree / "modules.builtin").is_file() or bool(entries(tree / "kernel"))
        except (OSError, DriverError):
            continue
        if real:
            found.append(release)
    return found
