"""The way down: undo in reverse, or keep what running processes need, within the time a stop may take."""

import time
from collections.abc import Callable

from driverctr import smi, status
from driverctr.depth import Depth
from driverctr.errors import Code, DriverError, of_os
from driverctr.plan import StepName
from driverctr.records import field, mutable
from driverctr.settings import OnStop
from driverctr.status import Phase
from driverctr.steps import Step, Tools, Undo, unload
from driverctr.steps.markers import withdraw
from driverctr.steps.unload import check_free

STAYS_WHILE_IN_USE = (
    StepName.LOAD,
    StepName.FIRMWARE,
    StepName.USERSPACE,
    StepName.DRIVER_ROOT,
    StepName.DEVICE_NODES,
)
"""Every new open reads firmware through the driver root: while modules stay, these stay."""

BUSY_WAIT, BUSY_PAUSE = unload.BUSY_WAIT, unload.BUSY_PAUSE
"""A stop waits for who uses the driver as long as a start does."""

UNDO_TIME = 12.0
"""Seconds of a stop that a load or unload of somebody else leaves: nvidia-smi, a daemon and rmmod may all hang."""


def begin(tools: Tools) -> None:
    """The time of the stop runs, and nobody believes the driver ready, before what runs beside it is ended."""
    tools.budget.begin()
    try:
        withdraw(tools, digest=False)
    except DriverError as error:
        tools.runner.log.error(str(error), code=error.code.value)


def abandon(tools: Tools, tell: Callable[..., None], stuck: DriverError) -> None:
    """Leave everything as it is but for the markers, which would lie; the lock ends with us, sysfs warns who comes."""
    withdraw(tools, digest=True)
    tell(phase=Phase.STUCK, failure=status.failed_now(stuck))


@mutable
class Stopping:
    """One stop: takes back what is in `done`, and tells by `tell(field=value, ...)`.

    `found_loaded`: the driver was there before this start; one that did not become ready leaves it there.
    """

    tools: Tools
    done: list[tuple[Step, Undo]]
    tell: Callable[..., None]
    found_loaded: bool = False
    kept: list[StepName] = field(default_factory=list)

    def take_down(self) -> None:
        """Undo in reverse order, or keep what running processes need; raises DriverError (in-use) if so."""
        self.tools.runner.log.info("stopping")
        self.tools.signals.deafen()
        self.tools.signals.what_is_left = self.describe_what_is_left
        self.tools.budget.begin()
        self.tell(phase=Phase.STOPPING, failure={}, next_try=None)  # an attempt's that nobody waits for any more
        was_ready = any(step.name is StepName.PUBLISH for step, _ in self.done)
        untouched = not self.done
        failures = self.undo_last() if self.done and self.done[-1][0].name is StepName.PUBLISH else []
        keep = self.reason_to_keep(was_ready)
        busy = [] if keep else self.find_users()
        self.stop_at_a_hang(busy)
        lost = self.read_state() if was_ready and not (keep or busy) else ()
        while self.done:
            if (busy or keep) and self.done[-1][0].name in STAYS_WHILE_IN_USE:
                self.keep_last(keep or "since the driver is in use")
                continue
            name = self.done[-1][0].name
            failed = self.undo_last()
            self.stop_at_a_hang(failed)
            failures += failed
            if name is StepName.LOAD:
                busy += failed
                self.tell_load(failed, lost)
        withdraw(self.tools, digest=not (busy or keep or untouched))
        self.tell(phase=Phase.STOPPED, kept=tuple(name.value for name in self.kept))
        for failure in (*busy, *failures):
            self.tell(failure=status.failed_now(failure), in_use=failure.in_use)
            raise failure
        if not keep:
            status.remove(self.tools.paths)

    def reason_to_keep(self, was_ready: bool) -> str:
        """Why the driver stays though nobody may use it; "" where it is to go."""
        if was_ready:
            return "as ON_STOP=keep asks" if self.tools.config.on_stop is OnStop.KEEP else ""
        return "since it was loaded before this start" if self.found_loaded else ""

    def stop_at_a_hang(self, failures: list[DriverError]) -> None:
        """Where the kernel hangs nothing more is touched; raises its DriverError (stuck)."""
        for failure in failures:
            if failure.code is Code.STUCK:
                self.kept += [step.name for step, _ in reversed(self.done)]
                self.done.clear()
                abandon(self.tools, self.tell, failure)
                raise failure

    def find_users(self) -> list[DriverError]:
        """Test the use before anything is stopped; a load that failed half-way may have left modules too.

        Neither who uses it nor a load under way (a client's modprobe) is taken for lasting at one look.
        """
        if not any(step.name in STAYS_WHILE_IN_USE for step, _ in self.done):
            return []
        deadlines: dict[Code, float] = {}
        while True:
            began = time.monotonic()
            try:
                check_free(self.tools)
            except DriverError as error:
                deadline = deadlines.setdefault(error.code, began + self.patience_with(error))
                if time.monotonic() >= deadline or self.tools.signals.hurried:
                    self.tools.runner.log.warning(f"the driver stays: {error}", code=error.code.value)
                    return [error]
                self.tools.signals.wait_readable(None, BUSY_PAUSE)
            else:
                return []

    def patience_with(self, busy: DriverError) -> float:
        """Seconds to wait: what neither came nor went would end the stop with everything left as it is."""
        briefly = self.tools.budget.for_others(BUSY_WAIT)
        if busy.code is not Code.STUCK:
            return briefly
        return max(briefly, self.tools.budget.for_others(self.tools.config.load_timeout + UNDO_TIME) - UNDO_TIME)

    def read_state(self) -> tuple[str, ...]:
        """What the unload will lose, where nvidia-smi is there to tell and nobody is in a hurry."""
        if self.tools.config.verify_depth is not Depth.SMI or self.tools.signals.hurried:
            return ()
        return smi.read_state(self.tools.runner, self.tools.budget.for_others(smi.STATE_LIMIT, smi.STATE_SHARE))

    def tell_load(self, failed: list[DriverError], lost: tuple[str, ...]) -> None:
        """Modules that went took state with them; modules that did not go are kept."""
        if failed:
            self.kept.append(StepName.LOAD)
            return
        for line in lost:
            self.tools.runner.log.warning(f"lost with the modules: {line}")

    def keep_last(self, why: str) -> None:
        """Leave the step done last as it is."""
        step, _ = self.done.pop()
        self.kept.append(step.name)
        self.tools.runner.log.warning(f"{step.name.value}: kept, {why}")

    def undo_last(self) -> list[DriverError]:
        """Undo the step done last; what fails is told and returned: the steps before it are undone all the same."""
        step, data = self.done[-1]
        try:
            with self.tools.runner.log.step(f"undo {step.name.value}", "taking back"):
                step.undo(self.tools, data)
        except DriverError as error:
            failure = error
        except OSError as error:
            failure = of_os(f"undo of {step.name.value}", error)
        else:
            return []
        finally:
            self.done.pop()
        self.tools.runner.log.error(str(failure), code=failure.code.value)
        return [failure]

    def describe_what_is_left(self) -> str:
        """For a third signal."""
        names = [*self.kept, *(step.name for step, _ in self.done)]
        return f"not taken back: {', '.join(names) or 'nothing'}; `driverctr unload` does it"
