"""What decides whether to begin at all: the part of the survey that preflight judges."""

import os
from collections.abc import Mapping
from pathlib import Path

from driverctr import pidfd
from driverctr.errors import DriverError
from driverctr.facts import fabric, hostdriver, hostroot, limits, loading, osrelease, privilege
from driverctr.facts.fabric import Fabric
from driverctr.facts.hostdriver import HostDriver
from driverctr.facts.loading import Loading
from driverctr.facts.modules import LoadedModule
from driverctr.facts.osrelease import OsRelease
from driverctr.facts.privilege import Privilege
from driverctr.facts.supported import Support
from driverctr.modules import ModuleSet, Wish, elf
from driverctr.mounts.syscalls import Syscalls
from driverctr.paths import Paths
from driverctr.records import frozen


@frozen
class Room:
    """What a build would find: free bytes of disk where it works, None where that cannot be told, memory in bytes, and
    headers of the host, or "". `mismatch` is why the packages of our distribution cannot have them, or ""."""

    scratch: Path
    disk: int | None
    memory: int
    headers: str
    mismatch: str = ""


@frozen
class Node:
    """What decides whether to begin at all.

    `support` is by PCI address, None where the image has no list; `host_module_loaded` tells whether the core module
    in the kernel is the file the host has, None where that cannot be told. `room` is None where nothing is to be
    built. `host` is the host's distribution, None where it is not shown; `lacks` is what an old kernel makes worse.
    """

    privilege: Privilege
    loading: Loading
    support: Mapping[str, Support] | None
    fabric: Fabric
    host_driver: HostDriver
    host_module_loaded: bool | None
    room: Room | None
    modules_signed: bool
    host: OsRelease | None = None
    lacks: tuple[str, ...] = ()


def read(
    paths: Paths,
    wish: Wish,
    support: Mapping[str, Support] | None,
    core: LoadedModule | None,
    module_set: ModuleSet | None,
) -> Node:
    """Look at the node; what a build needs (and costs to import) only where no modules are at hand."""
    host_driver = hostdriver.read(paths, wish.kernel_release)
    files = [module.file for module in module_set.modules.values()] if module_set else []
    return Node(
        privilege=privilege.read(paths),
        loading=loading.read(paths),
        support=support,
        fabric=fabric.read(paths),
        host_driver=host_driver,
        host_module_loaded=is_loaded(host_driver.module, core),
        room=None if module_set else read_room(paths, wish),
        modules_signed=bool(files) and all(map(loading.is_signed, files)),
        host=osrelease.of_host(paths),
        lacks=missing_calls(Syscalls()),
    )


def read_room(paths: Paths, wish: Wish) -> Room:
    """Disk and memory a build could use, and the first place where the host has headers for it."""
    from driverctr.modules.drafts import DEFAULT_SCRATCH

    scratch = paths.root / DEFAULT_SCRATCH.relative_to("/")
    try:
        status = os.statvfs(scratch)
        disk: int | None = status.f_bavail * status.f_frsize
    except OSError:
        disk = None
    headers = headers_place(paths, wish.kernel_release)
    return Room(scratch, disk, limits.read(paths.root).memory, headers, read_mismatch(paths))


def read_mismatch(paths: Paths) -> str:
    """Why our distribution's packages cannot have the headers of the host's kernel; "" where they may."""
    from driverctr import distros

    try:
        return distros.of(osrelease.of_image(paths.root)).describe_mismatch(osrelease.of_host(paths))
    except DriverError as error:
        return error.message


def missing_calls(calls: Syscalls) -> tuple[str, ...]:
    """What we go without on a kernel as old as RHEL 8's 4.18, and what is worse for it."""
    lost = (
        (
            calls.lacks_open_tree(),
            "open_tree (Linux 5.2): /run/nvidia/driver is empty for a moment while it is replaced",
        ),
        (
            pidfd.lacking(),
            "pidfd_open (Linux 5.3): the end of a process is noticed up to 0.1 s late, and signals go by pid",
        ),
    )
    return tuple(words for is_lacking, words in lost if is_lacking)


def headers_place(paths: Paths, release: str) -> str:
    """Where the host shows headers of a kernel, "" if nowhere; packages are not asked, they may need the network."""
    from driverctr import headers

    for place in hostroot.host_roots(paths.root):
        try:
            build = place.resolve(Path("/lib/modules") / release / "build")
            headers.check_release(build, release)
        except DriverError:
            continue
        return f"{place.reach}: {place.inside(build)}"
    return ""


def is_loaded(file: Path | None, module: LoadedModule | None) -> bool | None:
    """Whether a loaded module was built as this file was; None where a compressed file or no build-id does not tell."""
    if file is None or module is None:
        return False
    try:
        build_id = elf.read_elf_build_id(file)
    except (DriverError, OSError):
        return None
    return build_id == module.build_id if build_id and module.build_id else None
