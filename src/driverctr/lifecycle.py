"""The line of DESIGN section 1: plan, act step by step, wait, undo in reverse."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from driverctr import devices, firmware, markers, pidlock, status, survey
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts import kernel
from driverctr.modules import ModuleSet, Wish
from driverctr.mounts import driverroot, propagation
from driverctr.plan import Plan, PlannedStep, StepName, make
from driverctr.run import become_subreaper
from driverctr.status import Phase, Status, StepTime
from driverctr.steps import Gained, Outcome, Step, Tools, Undo
from driverctr.steps.devices import Daemons, DeviceNodes
from driverctr.steps.load import Load
from driverctr.steps.markers import Publish, Withdraw
from driverctr.steps.modules import Modules, builder
from driverctr.steps.root import DriverRoot, Firmware
from driverctr.steps.unload import Unload, check_free, stop_daemons, unload_modules
from driverctr.steps.verify import Verify
from driverctr.supervise import Supervisor
from driverctr.survey import Facts, Observation
from driverctr.userspace import image
from driverctr.versions import KernelRelease

STEPS: tuple[Step, ...] = (
    Withdraw(),
    Modules(),
    Unload(),
    Firmware(),
    DriverRoot(),
    Load(),
    DeviceNodes(),
    Daemons(),
    Verify(),
    Publish(),
)

STAYS_WHILE_IN_USE = (StepName.LOAD, StepName.FIRMWARE, StepName.DRIVER_ROOT, StepName.DEVICE_NODES)
"""Every new open reads firmware through the driver root: while modules stay, these stay."""


@dataclass
class Start:
    """One start: what was done (to be undone in reverse) and what is told about it."""

    tools: Tools
    build_allowed: bool = True
    done: list[tuple[Step, Undo]] = field(default_factory=list)
    gained: Gained = field(default_factory=Gained)
    told: Status = field(default_factory=lambda: Status(Phase.STARTING, time.time(), os.getpid()))

    def run(self) -> None:
        """Bring the driver up, wait, take it down; ends by raising Stopped, DriverError, or a bug's exception."""
        try:
            self.bring_up()
            self.tell(self.told.moved_to(Phase.READY))
            self.tools.runner.log.info("ready; waiting for a signal")
            self.wait()
        except Stopped as stopped:
            stopped.was_ready = any(step.name is StepName.PUBLISH for step, _ in self.done)
            self.take_down()
            raise
        except BaseException as error:
            try:
                self.fail(error)
            except Stopped:  # the first signal, in the moment before `fail` is deaf to it; a second is never raised
                self.fail(error)
            raise

    def bring_up(self) -> None:
        """Carry out the plan; a step that cannot do its part is an observation, and the plan is made again."""
        facts = survey.survey(self.tools.paths, self.tools.config)
        self.tell(
            replace(
                self.told,
                driver_version=facts.wish.driver_version,
                module_type=facts.wish.module_type,
                kernel_release=facts.wish.kernel_release,
            )
        )
        finished: set[StepName] = set()
        while planned := next((step for step in self.plan(facts).steps if step.name not in finished), None):
            try:
                self.apply(planned, facts)
            except DriverError as error:
                if not planned.alternative:
                    raise
                facts = replace(
                    facts, observations=(*facts.observations, Observation(planned.name, planned.alternative, error))
                )
                continue
            finished.add(planned.name)

    def plan(self, facts: Facts) -> Plan:
        """The plan as things are known now; raises DriverError for its first blocker."""
        made = make(self.tools.config, facts, build_allowed=self.build_allowed)
        for blocker in made.blockers:
            raise DriverError(blocker.code, blocker.message, blocker.remedy)
        return made

    def apply(self, planned: PlannedStep, facts: Facts) -> None:
        """Do one step, timed and told; its undo is noted on the line after the act."""
        step = next(step for step in STEPS if step.name == planned.name)
        self.tell(replace(self.told, step=planned.name.value))
        started = time.monotonic()
        with self.tools.runner.log.step(planned.name.value, planned.what), self.interrupts(step):
            outcome: Outcome = step.apply(self.tools, planned, facts, self.gained)
            if outcome.undo is not None:
                self.done.append((step, outcome.undo))
            self.gained = outcome.gained
        took = StepTime(planned.name.value, round(time.monotonic() - started, 3), "done")
        source = planned.alternative if planned.name == StepName.MODULES else self.told.modules_from
        self.told = replace(self.told, steps=(*self.told.steps, took), modules_from=source)

    @contextlib.contextmanager
    def interrupts(self, step: Step) -> Iterator[None]:
        """A signal ends a build at once, but never tears a modprobe or a mount apart."""
        if step.interruptible:
            self.tools.signals.check()
            yield
        else:
            with self.tools.signals.held():
                yield

    def wait(self) -> None:
        """Supervise until a signal."""
        supervisor = Supervisor(
            self.tools.paths, self.tools.runner, self.tools.signals, self.tools.syslog, self.on_daemons
        )
        supervisor.wait(self.gained.running)

    def on_daemons(self, all_live: bool) -> None:
        """A daemon's end flips only the daemons' marker; the kernel still has the driver."""
        markers.write_daemons_status(self.tools.paths.run, ready=all_live)
        restarts = self.told.daemon_restarts + (1 if all_live else 0)
        self.tell(replace(self.told, daemon_restarts=restarts))

    def take_down(self) -> None:
        """Undo in reverse order, or keep what running processes need; raises DriverError (in-use) if so."""
        log = self.tools.runner.log
        log.info("stopping")
        self.tools.signals.deafen()
        self.tell(self.told.moved_to(Phase.STOPPING))
        failures = []
        if self.done and self.done[-1][0].name == StepName.PUBLISH:
            failures += self.undo_last()
        busy = self.find_users()
        while self.done:
            step = self.done[-1][0]
            if busy and step.name in STAYS_WHILE_IN_USE:
                self.done.pop()
                log.warning(f"{step.name.value}: kept, since the driver is in use")
                continue
            failed = self.undo_last()
            failures += failed
            if step.name == StepName.LOAD:
                busy += failed
        markers.withdraw(self.tools.paths.run, digest=not busy)
        for failure in (*busy, *failures):
            raise failure
        status.remove(self.tools.paths)

    def find_users(self) -> list[DriverError]:
        """Test the use before anything is stopped; a load that failed half-way may have left modules too."""
        if not any(step.name in STAYS_WHILE_IN_USE for step, _ in self.done):
            return []
        try:
            check_free(self.tools)
        except DriverError as error:
            return [error]
        return []

    def undo_last(self) -> list[DriverError]:
        """Undo the step done last; what fails is told and returned: the steps before it are undone all the same."""
        step, data = self.done.pop()
        try:
            with self.tools.runner.log.step(f"undo {step.name.value}", "taking back"):
                step.undo(self.tools, data)
        except DriverError as error:
            failure = error
        except OSError as error:
            failure = DriverError(Code.NODE_FILE, f"undo of {step.name.value}: {error}", "See the log above")
        else:
            return []
        self.tools.runner.log.error(str(failure), code=failure.code.value)
        return [failure]

    def fail(self, error: BaseException) -> None:
        """After a failure: undo, then leave the reason where others look for it."""
        self.tools.signals.deafen()
        self.tools.runner.log.error(f"{error}; undoing what was done")
        try:
            self.take_down()
        except DriverError as second:
            self.tools.runner.log.error(f"not all could be undone: {second}")
        if isinstance(error, DriverError):
            self.tell(replace(self.told.moved_to(Phase.FAILED), failure=status.describe_failure(error)))

    def tell(self, told: Status) -> None:
        """Write the status document; a full or read-only /run/nvidia is not a reason to die half-way."""
        self.told = told
        try:
            status.publish(self.tools.paths, told)
        except OSError as error:
            self.tools.runner.log.warning(f"status not written: {error}")


def init(tools: Tools, *, build_allowed: bool = True) -> None:
    """Lock, bring up, wait, take down. Raises Stopped at the end of a good life, DriverError otherwise."""
    tools.signals.install()
    become_subreaper()
    with pidlock.held(tools.paths.pid_file):
        Start(tools, build_allowed).run()


def build(tools: Tools, kernel_release: str | None, output: Path | None) -> ModuleSet:
    """Have the modules for a kernel in a folder, built unless they are there already; raises DriverError."""
    tools.signals.install()
    become_subreaper()
    described = image.read(tools.paths.root)
    release = KernelRelease(kernel_release or kernel.read(tools.paths.root).release).text
    version = (tools.config.driver_version or described.driver_version).text
    wish = Wish(release, version, survey.choose_type(tools.config, version))
    return builder(tools, described, output or tools.config.modules_dir).find(wish)


def unload(tools: Tools) -> None:
    """Take away what a start that is no more has left: markers, daemons, modules, nodes, driver root, search path.

    Raises DriverError: already-running while a driver container lives, in-use while somebody uses the GPU.
    """
    with pidlock.held(tools.paths.pid_file):
        check_free(tools)
        markers.withdraw(tools.paths.run, digest=True)
        stop_daemons(tools)
        unload_modules(tools)
        devices.remove(tools.paths, devices.leftovers(tools.paths))
        propagation.settle(tools.paths)
        driverroot.clear(tools.paths, log=tools.runner.log)
        firmware.undo(tools.paths, firmware.recall(tools.paths))
        status.remove(tools.paths)
