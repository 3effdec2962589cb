"""The kernels that the host could boot: which modules this node will want for each, and whether they are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from driverctr import pidlock, wishes
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.facts import gpus, installed, kernel, supported
from driverctr.facts.gpus import Gpu
from driverctr.facts.kernel import KernelFacts
from driverctr.facts.supported import Support
from driverctr.files import read_text
from driverctr.log import Log
from driverctr.modules import Wish, key, provenance
from driverctr.modules.entry import Entry
from driverctr.modules.key import Key
from driverctr.modules.ondisk import OnDisk
from driverctr.modules.store import GOES, LOCKS, Store, locate, outlives_container
from driverctr.paths import Paths
from driverctr.records import frozen, replace
from driverctr.userspace import image, tag
from driverctr.userspace.image import Image
from driverctr.versions import KernelRelease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUILDING = "they are being built now"


@frozen
class Coming:
    """A kernel that may boot, the modules this node will want then, and the key it will look for them by."""

    image: Image
    kernel: KernelFacts
    wish: Wish
    key: Key


def foresee(paths: Paths, config: Config, release: KernelRelease) -> Coming:
    """What a start on that kernel will want here.

    Raises DriverError (no-modules, bad-setting, wrong-kernel) as that start would.
    """
    return _foresee(paths, config, image.read(paths.root), supported.of_gpus(paths, gpus.read(paths)), release)


def _foresee(
    paths: Paths, config: Config, described: Image, support: Mapping[str, Support] | None, release: KernelRelease
) -> Coming:
    tag.check_kernel(described, release.text, fallback=config.precompiled_fallback)
    facts = kernel.identify_installed(paths.root, release.text)
    wish = wishes.make_wish(config, described, release.text, support)
    return Coming(described, facts, wish, key.make(wish, described, facts))


def read(
    paths: Paths, config: Config, log: Log, told: Mapping[str, Any], seen: tuple[Gpu, ...] | None = None
) -> list[dict[str, Any]]:
    """Each kernel installed on the host, the newest first: whether a boot of it finds its modules, or why not.

    `rebuilt` is one that has the running kernel's name and is another build. `told` is what the start that serves tells
    of those it builds for (status.Status.next_kernels), `seen` are the GPUs, if they were just read.
    """
    running = read_text(paths.proc / "sys/kernel/osrelease") or ""
    look = _looker(paths, config, seen)
    found: list[dict[str, Any]] = []
    for each in installed.read(paths):
        release = each.release.text
        row: dict[str, Any] = {"release": release, "running": release == running, "rebuilt": False, "version": ""}
        try:
            coming = look(each.release)
            row |= {"rebuilt": row["running"] and not coming.kernel.running, "version": coming.kernel.version}
            row |= {"ready": True, "modules": find(paths, config, coming, log), "reason": ""}
        except DriverError as error:
            row |= {"ready": False, "modules": "", "reason": _describe(told.get(release, {})) or error.message}
        found.append(row)
    return found


def _looker(paths: Paths, config: Config, seen: tuple[Gpu, ...] | None) -> Callable[[KernelRelease], Coming]:
    """`foresee` for one kernel after the other: image and GPUs, which are the same for all, are looked at once."""
    once: list[tuple[Image, Mapping[str, Support] | None]] = []

    def look(release: KernelRelease) -> Coming:
        if not once:
            here = gpus.read(paths) if seen is None else seen
            once.append((image.read(paths.root), supported.of_gpus(paths, here)))
        return _foresee(paths, config, *once[0], release)

    return look


def find(paths: Paths, config: Config, coming: Coming, log: Log) -> str:
    """Where a start on that kernel would find its modules; raises DriverError with the reason why the store has none.

    What lies there is believed only after that start has looked at the files.
    """
    try:
        store = Store.open(locate(paths, config), log)
        if pidlock.is_held(store.folder / LOCKS / coming.key.digest, paths.proc / "locks"):
            raise DriverError(Code.NO_MODULES, BUILDING)
        found = look_up(store, coming.key)
        if doubt := provenance.judge(store, found, coming.kernel, paths.root):
            raise DriverError(Code.NO_MODULES, doubt.reason)
        goes = "" if outlives_container(paths, config, store.folder) else f", {GOES}"
        return f"store: {found}{goes}"
    except DriverError as error:
        try:
            return f"on disk: {OnDisk(config.modules_dir).find(coming.wish).folder}"
        except DriverError:
            raise error from None


def look_up(store: Store, wanted: Key) -> Entry:
    """The entry for a key; where nothing tells the kernel's version, one made for any build of that release.

    Raises DriverError (no-modules).
    """
    for found in store.entries() if not wanted.kernel_version else ():
        if replace(found.key, kernel_version="") == wanted:
            return found
    return store.find(wanted)


def _describe(told: Mapping[str, Any]) -> str:
    if told.get("state") == "building":
        return BUILDING
    return f"the last build failed: {told['reason']}" if told.get("reason") else ""


def format_row(row: Mapping[str, Any]) -> str:
    """For a line of the status."""
    name = row["release"]
    if row["running"]:
        name += " (running; another build of it is installed)" if row["rebuilt"] else " (running)"
    return (
        f"{name}: ready for its next boot, {row['modules']}" if row["ready"] else f"{name}: not ready, {row['reason']}"
    )
