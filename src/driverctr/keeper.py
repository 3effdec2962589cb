"""While the driver serves, its userspace is kept in the store, for the day on which another version does not load."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from driverctr.errors import Code, DriverError
from driverctr.modules import Source, pins
from driverctr.modules.store import USERSPACE, Store
from driverctr.steps import Gained, Tools

if TYPE_CHECKING:
    from driverctr.modules.userspaces import Userspaces
    from driverctr.userspace.listing import Listing

LOWEST = 19
"""The niceness of who has all day (setpriority(2)); on Linux each thread has its own."""

END_LIMIT = 5.0
"""Seconds the copy may take to notice that it is to end: a piece on a slow disk."""


class GivenUpError(Exception):
    """The driver is to stop: the copy is made another day."""


@contextlib.contextmanager
def keeping(tools: Tools, gained: Gained, store: Store | None) -> Iterator[None]:
    """For as long as the driver serves; the copy is made in a thread: nothing waits for it, and nothing fails by it.

    What no pinned driver needs any more is given up on the way.
    """
    try:
        wanted = choose(tools, gained, store)
    except DriverError as error:
        tools.runner.log.warning(f"the userspace is not kept: {error}", code=error.code.value)
        wanted = None
    if store is None or not (wanted or (store.folder / USERSPACE).is_dir()):
        yield
        return
    from driverctr.modules.userspaces import Userspaces

    ended = threading.Event()
    thread = threading.Thread(target=work, args=(tools, Userspaces(store), wanted, ended), name="keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(tools.budget.for_others(END_LIMIT))


def choose(tools: Tools, gained: Gained, store: Store | None) -> "Listing | None":
    """Our own userspace, where it serves and is to be kept; raises DriverError (no-modules) with what prevents it."""
    if not tools.config.keep_userspace or gained.source is Source.LAST_GOOD:
        return None
    if store is None:
        raise DriverError(Code.NO_MODULES, "KEEP_USERSPACE=true, but there is no store", "Mount one, see STORE_DIR")
    if gained.build is None or gained.build.key is None:
        raise DriverError(
            Code.NO_MODULES,
            "KEEP_USERSPACE=true, but the modules that serve do not come from the store, and could not return with it",
            "Leave MODULES_DIR out, and let `init` build or fetch them into the store",
        )
    from driverctr.userspace import listing

    return listing.read(tools.paths.root)


def work(tools: Tools, kept: "Userspaces", wanted: "Listing | None", ended: threading.Event) -> None:
    """Give up what is pinned no more, keep what serves; what goes wrong is said."""

    def go_on() -> None:
        if ended.is_set():
            raise GivenUpError

    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
    log = tools.runner.log
    try:
        for version in kept.prune(pins.read(kept.store.folder).versions()):
            log.info(f"store: the userspace of {version} is given up: nothing of that version is pinned")
        if wanted is not None and kept.keep(wanted, tools.paths.driver_root, go_on):
            log.info(f"store: the userspace of {wanted.driver_version}, {wanted.size >> 20} MB, is kept for a rollback")
    except GivenUpError:
        log.info("store: the userspace is not kept yet: the driver is to stop")
    except DriverError as error:
        log.warning(f"the userspace is not kept: {error}", code=error.code.value)
