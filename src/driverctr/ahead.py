"""Before the next kernel boots: its modules in the store, made at low priority beside a driver that serves."""

import contextlib
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from driverctr import instance, nextkernels
from driverctr.errors import Code, DriverError
from driverctr.facts import installed, kernel, limits
from driverctr.facts.hostroot import host_roots
from driverctr.files import write_kernel
from driverctr.modules import ModuleSet, pins
from driverctr.modules.drafts import find_whole
from driverctr.modules.entry import Entry
from driverctr.modules.ondisk import OnDisk, verify
from driverctr.modules.store import Store, locate
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
        log.warning(f"{error.message}: kept in {tools.config.modules_dir} instead")
        return on_disk(tools, coming).folder
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
    """The modules of that kernel: those that are there and whole, else built now; pinned until the kernel has run."""
    with store.building(coming.key, tools.signals.sleep):
        found = find_whole(store, coming.key, nextkernels.look_up)
        if found is not None:
            store.touch(found.key)
        else:
            found = fetch(tools, store, coming) or build(tools, store, coming)
    if not coming.kernel.running:
        pins.pin_next(store.folder, found.key)
        forget_removed(tools, store)
    tools.runner.log.info(f"the modules for kernel {coming.kernel.release} are ready in {found.folder}")
    return found.folder


def fetch(tools: Tools, store: Store, coming: Coming) -> Entry | None:
    """What the remote folder has for that kernel, None if nothing; raises DriverError for the store's own trouble."""
    with ExitStack() as stack:
        try:
            draft = stack.enter_context(fetched(tools, coming.key))
        except DriverError as error:
            tools.runner.log.info(f"not fetched: {error.message}")
            return None
        return store.publish(draft.key or coming.key, draft.module_set, None, draft.provenance)


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


def build(tools: Tools, store: Store, coming: Coming) -> Entry:
    """Build, and publish; raises DriverError.

    Where nothing told the kernel's version before the build, its headers from packages have told it now.
    """
    log = tools.runner.log
    check_headers(tools, coming)
    with builder(tools, coming.image, tools.config.modules_dir).draft(coming.wish) as draft:
        made = draft.module_set.kernel_version
        version = coming.key.kernel_version or made
        if made != version:
            log.warning(f"built with headers of {made or 'an unknown build'}, for the kernel {version}")
        elif not version:
            log.warning("nothing tells which build of that kernel is installed: its boot may not take these modules")
        provenance = {**draft.provenance, "made": "before the kernel ran"}
        return store.publish(replace(coming.key, kernel_version=version), draft.module_set, draft.log_path, provenance)


def forget_removed(tools: Tools, store: Store) -> None:
    """Modules for a kernel that is on the host no more need not be kept; where the host is not seen they are."""
    there = {each.release.text for each in installed.read(tools.paths)}
    for release in pins.read(store.folder).next:
        if there and release not in there:
            pins.unpin_next(store.folder, release)
            tools.runner.log.info(f"kernel {release} is on the host no more: its modules may go")


def on_disk(tools: Tools, coming: Coming) -> ModuleSet:
    """The set in MODULES_DIR, built unless it is there and whole; raises DriverError."""
    try:
        found = OnDisk(tools.config.modules_dir).find(coming.wish)
        verify(found, meanwhile=lambda: None)
    except DriverError as error:
        tools.runner.log.info(f"not there yet: {error.message}")
        return builder(tools, coming.image, tools.config.modules_dir).find(coming.wish)
    return found
