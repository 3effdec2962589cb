"""Before the next kernel boots: its modules in the store, made at low priority beside a driver that serves."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from driverctr import instance, nextkernels, node, prebuild, preflight
from driverctr.errors import Code, DriverError, of_os
from driverctr.facts import installed, kernel, limits, mounttable
from driverctr.facts.hostroot import host_roots
from driverctr.files import write_kernel
from driverctr.modules import ModuleSet, locks, pins, provenance
from driverctr.modules.drafts import Draft, find_whole, publish, put
from driverctr.modules.entry import Entry
from driverctr.modules.ondisk import OnDisk, set_folder, verify
from driverctr.modules.provenance import Doubt
from driverctr.modules.store import GOES, Store, locate, outlives_container
from driverctr.nextkernels import Coming
from driverctr.run import become_subreaper
from driverctr.steps import Tools
from driverctr.steps.modules import builder, fetched
from driverctr.versions import KernelRelease

LATEST = "latest"
"""As NVIDIA's `update` calls the newest kernel (reference B.2)."""

LOWEST = 19
"""nice(2)"""

FIRST_VICTIM = "1000"
"""proc_pid_oom_score_adj(5): where memory runs out, this goes before anything that serves."""

SET_DISK = 150_000_000
"""Bytes that a set of modules takes where it stays, and where it is copied to (measured with 535: 70 MB)."""

LOCK = ".update.lock"
"""In MODULES_DIR, where there is no store: one build ahead at a time."""


def update(tools: Tools, wanted: str, *, beside: bool = False) -> Path | None:
    """Have the modules for a kernel before it boots; the folder they lie in, None where no kernel is to come.

    Nothing is loaded, and a driver that serves is left alone; `beside` its container we end when that does. Raises
    DriverError.
    """
    tools.signals.install()
    if beside:
        instance.end_with_it(tools.paths)
    become_subreaper()
    release = choose(tools, wanted)
    if release is None:
        return None
    tools = give_way(tools)
    log = tools.runner.log
    coming = nextkernels.foresee(tools.paths, tools.config, release)
    log.info(f"update: have {coming.wish} before that kernel boots")
    try:
        store = Store.open(locate(tools.paths, tools.config), log, tools.config.store_max_size)
    except DriverError as error:
        log.warning(
            f"{error.message}: the modules are kept in {tools.config.modules_dir} instead", code=error.code.value
        )
        return on_disk(tools, coming)
    return in_store(tools, store, coming)


def choose(tools: Tools, wanted: str) -> KernelRelease | None:
    """The kernel meant: `latest` is the newest one installed on the host that has not run."""
    if wanted != LATEST:
        return KernelRelease(wanted)
    newest = next(iter(installed.upcoming(tools.paths)), None)
    if newest is None:
        tools.runner.log.info("no kernel is installed on the host that is newer than the one that runs: nothing to do")
        return None
    return newest.release


def give_way(tools: Tools) -> Tools:
    """Lower our priority for processors, disks and memory, and that of all we start; half of the processors remain.

    Priority counts within our control group, so the number of jobs bounds what the others lose.
    """
    os.nice(LOWEST)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):
        write_kernel(tools.paths.proc / "self/oom_score_adj", FIRST_VICTIM)
    with contextlib.suppress(DriverError):
        tools.runner.run(["ionice", "--class", "idle", "--pid", str(os.getpid())], check=False)
    half = max(1, limits.read(tools.paths.root).cpus // 2)
    return replace(tools, config=replace(tools.config, max_threads=tools.config.max_threads or half))


def in_store(tools: Tools, store: Store, coming: Coming) -> Path:
    """The modules of that kernel: those that are there and whole, else made now; pinned until the kernel has run.

    Who finds them there waits for nobody. Raises DriverError.
    """
    found = look(tools, store, coming)
    if not isinstance(found, Entry):
        with store.building(coming.key, tools.signals.sleep, ahead=True):
            found = look(tools, store, coming)
            if not isinstance(found, Entry):
                found = make(tools, store, coming, found)
    store.touch(found.key)
    if not coming.kernel.running:
        pins.pin_next(store.folder, found.key)
        if not store.has(found.key):
            tools.runner.log.info(f"store: {found} was given up before it was pinned; once more")
            return in_store(tools, store, coming)
    there = frozenset(each.release.text for each in installed.read(tools.paths))
    prebuild.forget_removed(store.folder, there, tools.runner.log)
    tools.runner.log.info(
        f"the modules for kernel {coming.kernel.release} are ready in {found.folder}"
        + ("" if outlives_container(tools.paths, tools.config, store.folder) else f", {GOES}")
    )
    return found.folder


def look(tools: Tools, store: Store, coming: Coming) -> Entry | Doubt | None:
    """What the store has for that kernel, if it is whole, or why it is to be made anew all the same."""
    found = find_whole(store, coming.key, nextkernels.look_up)
    return found and (provenance.judge(store, found, coming.kernel, tools.paths.root) or found)


def make(tools: Tools, store: Store, coming: Coming, doubt: Doubt | None) -> Entry:
    """Have the modules made, and publish them, in place of an entry in doubt; raises DriverError."""
    if doubt is not None:
        tools.runner.log.info(doubt.reason)
    with store.stage() as stage:
        check_place(stage)
    with obtained(tools, coming) as draft:
        return put(store, draft.key or coming.key, draft, doubt)


def on_disk(tools: Tools, coming: Coming) -> Path:
    """The modules in MODULES_DIR, made now unless they are there and whole; raises DriverError."""
    folder, log = tools.config.modules_dir, tools.runner.log

    def tell(holder: str) -> None:
        log.info(f"modules in {folder} are being built by {holder}; waiting for it")

    found = find_on_disk(tools, coming)
    if found is None:
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locks.held(folder / LOCK, tools.signals.sleep, tell))
            except OSError as error:
                raise of_os(f"MODULES_DIR={folder} cannot be written to", error) from error
            found = find_on_disk(tools, coming)
            if found is None:
                check_place(folder)
                found = publish(stack.enter_context(obtained(tools, coming)), set_folder(folder, coming.wish))
    if mounttable.is_mounted(tools.paths.root, folder):
        log.info(f"the modules for kernel {coming.kernel.release} are ready in {found.folder}")
    else:
        log.warning(
            f"the modules for kernel {coming.kernel.release} lie in {found.folder}, {GOES}: "
            f"mount a folder of the host at {tools.config.store_dir.parent} or {folder}, and they stay"
        )
    return found.folder


def find_on_disk(tools: Tools, coming: Coming) -> ModuleSet | None:
    """The set in MODULES_DIR, if it is whole."""
    try:
        found = OnDisk(tools.config.modules_dir).find(coming.wish)
        verify(found, meanwhile=lambda: None)
    except DriverError as error:
        tools.runner.log.info(f"not there yet: {error.message}", code=error.code.value)
        return None
    return found


def check_place(folder: Path) -> None:
    """Before anything is made: will there be room where it is to stay? Raises DriverError (no-space)."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return
    free = status.f_bavail * status.f_frsize
    if free < SET_DISK:
        raise DriverError(
            Code.NO_SPACE,
            f"{free / 1e6:.0f} MB free in {folder}, and a set of modules takes {SET_DISK / 1e6:.0f} MB",
            "Free space there (`driverctr store prune`), or use a larger volume",
        )


@contextlib.contextmanager
def obtained(tools: Tools, coming: Coming) -> Iterator[Draft]:
    """What the remote folder has for that kernel, else what is built now; in scratch, for the length of the block.

    Raises DriverError as a build does.
    """
    with ExitStack() as stack:
        try:
            draft = stack.enter_context(fetched(tools, coming.key))
        except DriverError as error:
            tools.runner.log.info(f"not fetched: {error.message}", code=error.code.value)
            draft = stack.enter_context(built(tools, coming))
        yield draft


@contextlib.contextmanager
def built(tools: Tools, coming: Coming) -> Iterator[Draft]:
    """What is built now; it never begins where init would not begin a build. Raises DriverError.

    Where nothing told the kernel's version before the build, its headers from packages have told it now.
    """
    check_room(tools, coming)
    check_headers(tools, coming)
    version = coming.key.kernel_version
    builds = replace(builder(tools, coming.image, tools.config.modules_dir), kernel_version=version)
    with builds.draft(coming.wish) as draft:
        made = draft.module_set.kernel_version
        if version and not made:
            tools.runner.log.warning(f"built with headers of an unknown build, for the kernel {version}")
        elif not made:
            tools.runner.log.warning(
                "nothing tells which build of that kernel is installed: its boot may not take these modules"
            )
        provenance = {**draft.provenance, "made": "before the kernel ran"}
        yield replace(draft, key=replace(coming.key, kernel_version=version or made), provenance=provenance)


def check_room(tools: Tools, coming: Coming) -> None:
    """What preflight asks before a build: a node that serves is not to be filled up. Raises DriverError."""
    for check in preflight.check_room(node.read_room(tools.paths, coming.wish)):
        if check.code is not None and preflight.is_refused(check):
            raise DriverError(check.code, check.evidence, check.remedy)


def check_headers(tools: Tools, coming: Coming) -> None:
    """Refuse headers of another build of that kernel: they are about to be replaced, and what they make may not load.

    Raises DriverError (headers-missing).
    """
    release, version = coming.kernel.release, coming.kernel.version
    there = kernel.version_of_headers(release, host_roots(tools.paths.root))
    if there and version and there != version:
        raise DriverError(
            Code.HEADERS_MISSING,
            f"the host's headers for {release} are of the build {there}, the kernel installed is {version}",
            f"Install the headers of {release} in the kernel's own package version",
        )
