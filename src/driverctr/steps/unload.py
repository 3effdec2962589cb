"""Unload what is loaded, in the order of the real holders graph."""

from dataclasses import replace

from driverctr import daemons, smi
from driverctr.config import Depth
from driverctr.errors import Code, DriverError
from driverctr.facts import holders, modules
from driverctr.plan import PlannedStep, StepName
from driverctr.preflight import STOP_THE_USERS
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


def check_free(tools: Tools) -> None:
    """Raise DriverError (in-use) with module, refcount and process if anybody but our own daemons uses the driver."""
    own = [found.pid for daemon in daemons.DAEMONS if (found := daemons.find(tools.paths, daemon))]
    stack = modules.read_stack(tools.paths)
    used = holders.in_use(stack, holders.read(tools.paths) if stack else (), own)
    if used:
        raise DriverError(Code.IN_USE, "the driver is in use: " + "; ".join(map(str, used)), STOP_THE_USERS)


def stop_daemons(tools: Tools) -> None:
    """Stop our own daemons, whoever started them; they hold device nodes open."""
    for daemon in reversed(daemons.DAEMONS):
        running = daemons.find(tools.paths, daemon)
        if running is not None:
            tools.stop_daemon(running)
            tools.runner.log.info(f"{daemon.name} (pid {running.pid}) stopped")


def unload_modules(tools: Tools) -> None:
    """Unload the whole stack, holders first; the use is tested again right before. Raises DriverError."""
    check_free(tools)
    order = modules.unload_order(modules.read_stack(tools.paths))
    if order:
        tools.kmod.unload(order, tools.budget.for_an_act())
        tools.runner.log.info("unloaded " + ", ".join(order))


class Unload:
    """Nothing is stopped before it is known that everything can go."""

    name = StepName.UNLOAD
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Test, stop our daemons, test again, unload."""
        check_free(tools)
        lost = self.read_state(tools, facts)
        stop_daemons(tools)
        unload_modules(tools)
        for line in lost:
            tools.runner.log.warning(f"lost with the modules: {line}")
        unloaded = tuple(f"{module.name} {module.version}".strip() for module in facts.stack.values())
        return Outcome(None, replace(gained, unloaded=unloaded, lost=lost))

    def read_state(self, tools: Tools, facts: Facts) -> tuple[str, ...]:
        """What the unload will lose; nvidia-smi of our image can tell only with modules of its own version."""
        core = facts.stack.get(modules.CORE)
        if core is None or tools.config.verify_depth is not Depth.SMI:
            return ()
        if core.version != facts.image.driver_version.text:
            tools.runner.log.debug(f"the GPUs' state is not known: our nvidia-smi cannot talk to {core.version}")
            return ()
        return smi.read_state(tools.runner)

    def undo(self, tools: Tools, data: Undo) -> None:
        """The old driver's userspace went with its container: there is nothing to return to."""
