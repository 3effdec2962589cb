"""While a driver serves: what is looked after until a signal comes, or until it is to be loaded anew."""

import contextlib
import gc
from collections.abc import Callable, Sequence

from driverctr import hints, keeper, prebuild, stopping
from driverctr.errors import DriverError
from driverctr.health import Health
from driverctr.modules.store import Store
from driverctr.pending import Pending, ReloadDue
from driverctr.steps import Gained, Tools
from driverctr.steps.modules import furnish
from driverctr.supervise import Supervisor


def serve(tools: Tools, gained: Gained, store: Store | None, lasting: Sequence[str], tell: Callable[..., None]) -> None:
    """Supervise; returns where nobody uses a driver that is to be loaded anew, and else ends by a signal's Stopped.

    `lasting` is why the driver is degraded for as long as it serves.
    """
    gc.enable()  # cli has switched it off for the start
    pending = Pending(tools, gained.kept.stale) if gained.kept and gained.kept.stale else None
    health = Health(
        tools,
        gained.lasting(tools.config.verify_gpus),
        tell,
        tuple(lasting),
        pending,
        gained.substitutes,
        gained.features,
    )
    complete(tools, gained)
    with contextlib.suppress(ReloadDue), contextlib.ExitStack() as beside:
        beside.callback(health.close)
        try:
            beside.enter_context(keeper.keeping(tools, gained, store))
            ahead = beside.enter_context(prebuild.serving(tools, tell))
            heard = beside.enter_context(hints.listening(tools.paths, tools.runner.log))
            look = ahead.after(health.look)
            Supervisor(
                tools.start_daemon, tools.runner, tools.signals, tools.syslog, health.on_daemons, look, ahead.children
            ).wait(gained.running, [*heard, ahead])
        except ReloadDue:
            raise
        except BaseException:
            stopping.begin(tools)
            raise


def complete(tools: Tools, gained: Gained) -> None:
    """A driver that was loaded before has no files in this container yet, which neighbours' modprobe looks for."""
    if gained.kept is None or not all(module.file.is_file() for module in gained.module_set.modules.values()):
        return
    try:
        with tools.signals.held():  # one in the import of `sh` might be lost (deferred.defer_of_others)
            furnish(tools, gained.module_set, tuple(gained.parameters))
    except DriverError as error:
        tools.runner.log.warning(f"the modules are loaded, but not in our module tree: {error}", code=error.code.value)
