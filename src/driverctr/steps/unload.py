"""Unload what is loaded, in the order of the real holders graph."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from driverctr import daemons, parameters, smi
from driverctr.daemons import Running
from driverctr.depth import Depth
from driverctr.errors import Code, DriverError, code_of
from driverctr.explain import EXPLANATIONS
from driverctr.facts import holders, kernel, modules, tasks
from driverctr.facts.modules import LoadedModule
from driverctr.facts.tasks import Task
from driverctr.modules import loaded
from driverctr.modules.elf import read_elf_build_id
from driverctr.modules.ondisk import check_file
from driverctr.plan import PlannedStep, StepName
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.steps.modules import furnish
from driverctr.survey import Facts

SETTLE_PAUSE = 0.5
"""Seconds between two looks at what somebody else began: the kernel sends no event when initstate changes."""

HANG_SIGN = 5.0
"""Seconds that who unloads sleeps uninterruptibly in one place of the driver, and is taken for hanging."""


BUSY_WAIT = 3.0
"""Seconds who uses the driver is waited for: a probe that runs nvidia-smi just now is soon gone, a job is not."""

BUSY_PAUSE = 0.3
"""Seconds between two looks at who uses it."""

RELOAD_TIME = 5.0
"""Seconds of a stop that must be left to load again what went: files are hashed and copied, and depmod runs."""


@dataclass
class Patience:
    """For loads and unloads that somebody else began: udev at boot, the former container's modprobe, an rmmod by hand.

    A load has the time of our own ones, wherever it sleeps meanwhile and whoever was killed with it: it brings up one
    GPU after the other, and then its end is a good one.
    """

    tools: Tools
    _began: float | None = None
    _asleep: dict[Task, float] = field(default_factory=dict)

    def look(self) -> bool:
        """Whether something of the driver is neither loaded nor gone; raises DriverError (stuck) at patience's end."""
        unsettled = modules.unsettled(modules.read_stack(self.tools.paths))
        if not unsettled:
            self._began = None
            return False
        now = time.monotonic()
        asleep = tasks.hanging_module_tools(self.tools.paths)
        if self._began is None:
            self._began, self._asleep = now, {}
            self.tools.runner.log.info(f"{tasks.describe_stuck(unsettled, asleep)}: waiting for it")
        self._asleep = {task: self._asleep.get(task, now) for task in asleep if task.in_driver}
        hangs = any(now - since >= HANG_SIGN for since in self._asleep.values())
        only_unloads = all(module.state == "going" for module in unsettled)
        if (hangs and only_unloads) or now - self._began >= self.tools.config.load_timeout:
            raise stuck(unsettled, asleep)
        return True


def stuck(unsettled: Iterable[LoadedModule], asleep: Iterable[Task]) -> DriverError:
    """For what neither came nor went."""
    return DriverError(Code.STUCK, tasks.describe_stuck(unsettled, asleep), EXPLANATIONS[Code.STUCK].remedy)


def settle(tools: Tools) -> None:
    """Wait while somebody else loads or unloads the driver.

    Raises DriverError (stuck) where that does not end, and Stopped: signals must not be held.
    """
    patience = Patience(tools)
    while patience.look():
        tools.signals.sleep(SETTLE_PAUSE)


def check_free(tools: Tools) -> Mapping[str, LoadedModule]:
    """Raise DriverError (in-use) with module, refcount and process if anybody but our own daemons uses the driver.

    A module whose load or unload has not ended is neither free nor used: DriverError (stuck). Returns the modules.
    """
    stack = modules.read_stack(tools.paths)
    if unsettled := modules.unsettled(stack):
        raise stuck(unsettled, tasks.hanging_module_tools(tools.paths))
    used = holders.look(tools.paths, [running.identity for running in daemons.find_all(tools.paths)], stack)
    if used:
        error = DriverError(Code.IN_USE, holders.describe(used), holders.remedy(used))
        error.in_use = tuple(use.as_dict() for use in used)
        raise error
    return stack


def wait_until_free(tools: Tools) -> None:
    """As check_free, but who uses the driver for a moment only is waited for.

    Raises DriverError (in-use, stuck) and Stopped: signals must not be held.
    """
    deadline = time.monotonic() + BUSY_WAIT
    while True:
        try:
            check_free(tools)
        except DriverError as error:
            if error.code is not Code.IN_USE or time.monotonic() >= deadline:
                raise
            tools.signals.sleep(BUSY_PAUSE)
        else:
            return


def stop_daemons(tools: Tools) -> tuple[Running, ...]:
    """Stop our own daemons, whoever started them; they hold device nodes open. Returns those that ran."""
    stopped = daemons.find_all(tools.paths)
    for running in reversed(stopped):
        tools.stop_daemon(running)
        tools.runner.log.info(f"{running.daemon.name} (pid {running.pid}) stopped")
    return stopped


def start_again(tools: Tools, stopped: Iterable[Running]) -> None:
    """The driver stays: so do the daemons that were stopped for nothing. One that does not start is told."""
    for former in stopped:
        try:
            running = tools.start_daemon(former.daemon)
            tools.runner.log.info(f"{running.daemon.name} runs again (pid {running.pid}), since the driver stays")
        except DriverError as error:
            tools.runner.log.error(str(error), code=error.code.value)


def unload_modules(tools: Tools) -> None:
    """Unload the whole stack, holders first; the use is tested again right before.

    Raises DriverError. Somebody may come in between test and rmmod: then what went already is loaded again, and named
    is who came.
    """
    stack = check_free(tools)
    order = modules.unload_order(stack)
    if not order:
        loaded.forget(tools.paths)
        return
    try:
        tools.kmod.unload(order, tools.config.load_timeout)
    except DriverError as error:
        if error.code is not Code.STUCK:
            _load_again(tools, [stack[name] for name in reversed(order)])
            check_free(tools)
        raise
    loaded.forget(tools.paths)
    tools.runner.log.info("unloaded " + ", ".join(order))


def _load_again(tools: Tools, former: Iterable[LoadedModule]) -> None:
    """Load what is gone of a stack whose core stays, and only the same build; what cannot be is told."""
    left = modules.read_stack(tools.paths)
    gone = [module for module in former if left and module.name not in left]
    if gone and tools.budget.for_others(RELOAD_TIME) < RELOAD_TIME:
        names = ", ".join(module.name for module in gone)
        tools.runner.log.error(f"{names} is unloaded and not loaded again: the stop leaves no time for it")
        return
    for module in gone:
        try:
            _load_same(tools, module)
            tools.runner.log.info(f"{module.name} loaded again, since {', '.join(left)} cannot be unloaded")
        except (DriverError, OSError) as error:
            tools.runner.log.error(
                f"{module.name} was unloaded and cannot be loaded again: {error}", code=code_of(error)
            )


def _load_same(tools: Tools, module: LoadedModule) -> None:
    """From our tree, or what was recorded when it was loaded; raises DriverError or OSError where it is in neither.

    Our tree may have another build by now, or, in a new container, none.
    """
    release = kernel.read(tools.paths.root).release
    files = tools.kmod.dependencies(module.name, release, tools.paths.root)
    if not files or read_elf_build_id(files[-1]) != module.build_id:
        _restore(tools, module)
    tools.kmod.load(module.name, tools.config.load_timeout)


def _restore(tools: Tools, module: LoadedModule) -> None:
    """Have our tree furnished with the set that was loaded last; raises as `_load_same`."""
    record = loaded.read(tools.paths)
    found = {modules.kernel_name(name): name for name in record.build.module_set.modules} if record else {}
    name = found.get(module.name)
    if record is None or name is None or record.build.module_set.modules[name].build_id != module.build_id:
        raise DriverError(
            Code.NO_MODULES, f"that build of {module.name} is not in our module tree, nor known from its load"
        )
    check_file(record.build.module_set.modules[name], tools.hashes)
    furnish(tools, record.build.module_set, (*record.parameters, name))
    given = record.parameters.get(name)  # none of what is loaded beside
    parameters.write(tools.paths, name, parameters.user_words(tools.paths, name) if given is None else given)


def free(tools: Tools) -> None:
    """Stop our daemons and unload the stack, or leave both as they were; raises DriverError."""
    check_free(tools)
    stopped = stop_daemons(tools)
    try:
        unload_modules(tools)
    except DriverError as error:
        if error.code is not Code.STUCK:
            start_again(tools, stopped)
        raise


class Unload:
    """Nothing is stopped before it is known that everything can go; from then on no signal tears it apart."""

    name = StepName.UNLOAD
    interruptible = True

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Test, stop our daemons, test again, unload; if that is refused, our daemons run again."""
        if gained.kept:
            return Outcome(None, gained)
        settle(tools)
        wait_until_free(tools)
        self.check_way_back(tools, facts)
        lost = self.read_state(tools, facts)
        with tools.signals.held():
            free(tools)
        for line in lost:
            tools.runner.log.warning(f"lost with the modules: {line}")
        unloaded = tuple(f"{module.name} {module.version}".strip() for module in facts.stack.values())
        return Outcome(None, replace(gained, unloaded=unloaded or gained.unloaded, lost=lost or gained.lost))

    def check_way_back(self, tools: Tools, facts: Facts) -> None:
        """What is kept to return to another version is hashed while that still serves; what is damaged is told now."""
        former, store = facts.supply.former, facts.supply.store
        if former is None or former.userspace is None or store is None or not former.is_loaded:
            return
        from driverctr.modules.userspaces import Userspaces

        for damage in Userspaces(store).verify(former.userspace):
            wanted = facts.wish.driver_version
            tools.runner.log.warning(f"if {wanted} does not load, rollback is impossible: {damage}")

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
