"""A driver that is installed on the host itself."""

from pathlib import Path

from driverctr.deferred import pattern
from driverctr.errors import DriverError
from driverctr.facts import hostroot
from driverctr.facts.hostroot import HostRoot
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

SMI_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")
"""Where NVIDIA's validator looks for nvidia-smi (gpu-operator, internal/driver/root.go)."""

MODULE_FILE = pattern(r"([^:]*/)?nvidia(?:-current)?\.ko(?:\.\w+)?:")
"""How the core module's line in modules.dep begins (modules.dep(5)); Debian calls it nvidia-current."""

DRIVER_ROOT = Path("/run/nvidia/driver")
"""As the host names it."""


@frozen
class HostDriver:
    """What the host has of its own: nvidia-smi and the core module's file as we see them, each None if there is none.

    `visible` tells whether the host's root can be seen at all.
    """

    visible: bool
    smi: Path | None = None
    module: Path | None = None


def read(paths: Paths, kernel_release: str) -> HostDriver:
    """Look through process 1's root, where that is the host's; the module's file is told by its index, modules.dep."""
    host = hostroot.process_root(paths.root)
    if host is None:
        return HostDriver(visible=False)
    return HostDriver(True, _smi(host), _module(host, kernel_release))


def _smi(host: HostRoot) -> Path | None:
    """A regular, non-empty, executable file: container runtimes leave empty ones behind."""
    for folder in SMI_FOLDERS:
        try:
            found = host.resolve(Path("/") / folder / "nvidia-smi")
            status = found.stat()
        except (DriverError, OSError):
            continue
        # A link into the driver root is an administrator's convenience, and leads to a driver of ours.
        if DRIVER_ROOT in host.inside(found).parents:
            continue
        if found.is_file() and status.st_size and status.st_mode & 0o111:
            return found
    return None


def _module(host: HostRoot, release: str) -> Path | None:
    try:
        tree = host.resolve(Path("/lib/modules") / release)
        lines = (read_text(tree / "modules.dep") or "").splitlines()
        found = next(filter(None, (MODULE_FILE.match(line) for line in lines if "nvidia" in line)), None)
        return host.resolve(host.inside(tree) / found.group()[:-1]) if found else None
    except DriverError:
        return None
