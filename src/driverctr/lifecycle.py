"""The line of DESIGN section 1: plan, act step by step, wait, undo in reverse."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from driverctr import devices, files, firmware, gpuwait, hints, markers, node, pidlock, status, survey
from driverctr.config import NoGpu
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts import gpus, kernel
from driverctr.health import Health
from driverctr.modules import ModuleSet, Wish
from driverctr.mounts import driverroot, propagation
from driverctr.paths import Paths
from driverctr.plan import Plan, PlannedStep, StepName, make
from driverctr.run import become_subreaper
from driverctr.status import Phase, Status, StepTime
from driverctr.steps import Gained, Outcome, Step, Tools, Undo
from driverctr.steps.devices import Daemons, DeviceNodes
from driverctr.steps.load import Load
from driverctr.steps.markers import Publish, Withdraw
from driverctr.steps.modules import Modules, builder
from driverctr.steps.root import DriverRoot, Firmware
from driverctr.steps.unload import Unload, check_free, free, settle
from driverctr.steps.verify import Verify
from driverctr.stopping import Stopping, abandon
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

OF_THE_USER = (Code.BAD_SETTING, Code.BAD_PARAMETER)
"""What no other source of modules can cure."""


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
            self.tell(phase=Phase.READY)
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
        facts = self.look()
        if not facts.gpus and self.tools.config.no_gpu is NoGpu.WAIT:
            self.plan(facts)
            self.wait_for_gpu()
            facts = self.look()
        for warning in self.plan(facts).warnings:
            self.tools.runner.log.warning(warning)
        finished: set[StepName] = set()
        while planned := next((step for step in self.plan(facts).steps if step.name not in finished), None):
            try:
                self.apply(planned, facts)
            except DriverError as error:
                if not planned.alternative or error.code in OF_THE_USER:
                    raise
                facts = replace(
                    facts, observations=(*facts.observations, Observation(planned.name, planned.alternative, error))
                )
                continue
            finished.add(planned.name)

    def look(self) -> Facts:
        """Survey the node once nobody else loads or unloads the driver, and tell what is wanted."""
        settle(self.tools)
        facts = survey.survey(self.tools.paths, self.tools.config)
        wish = facts.wish
        self.tell(
            driver_version=wish.driver_version,
            module_type=wish.module_type,
            kernel_release=wish.kernel_release,
        )
        return facts

    def wait_for_gpu(self) -> None:
        """Sleep until a GPU is plugged in; meanwhile nothing of an earlier start says ready."""
        markers.withdraw(self.tools.paths.run, digest=True)
        self.tools.runner.log.info("no NVIDIA GPU on the PCI bus: waiting for one to be plugged in (NO_GPU=wait)")
        self.tell(phase=Phase.WAITING_FOR_GPU)
        gpuwait.wait_for_gpu(self.tools.paths, self.tools.signals)
        self.tools.runner.log.info("an NVIDIA GPU has come")
        self.tell(phase=Phase.STARTING)

    def plan(self, facts: Facts) -> Plan:
        """The plan as things are known now; raises DriverError for its first blocker."""
        made = make(self.tools.config, facts, build_allowed=self.build_allowed)
        for blocker in made.blockers:
            raise DriverError(blocker.code, blocker.message, blocker.remedy)
        return made

    def apply(self, planned: PlannedStep, facts: Facts) -> None:
        """Do one step, timed and told; its undo is noted on the line after the act."""
        step = next(step for step in STEPS if step.name == planned.name)
        self.tell(step=planned.name.value)
        started = time.monotonic()
        with self.tools.runner.log.step(planned.name.value, planned.what), self.interrupts(step):
            outcome: Outcome = step.apply(self.tools, planned, facts, self.gained)
            if outcome.undo is not None:
                self.done.append((step, outcome.undo))
            self.gained = outcome.gained
        took = StepTime(planned.name.value, round(time.monotonic() - started, 3), "done")
        source = planned.alternative if planned.name == StepName.MODULES else self.told.modules_from
        self.told = replace(self.told, steps=(*self.told.steps, took), modules_from=source, lost=self.gained.lost)

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
        """Supervise until a signal: daemons live, and what was true at the start stays true."""
        config = self.tools.config
        expected = replace(self.gained.expected(config.verify_gpus), running=())
        silent = tuple(f"GPU {address} does not answer nvidia-smi" for address in self.gained.silent_gpus)
        health = Health(self.tools, expected, self.tell, lasting=silent)
        self.tell(expected=expected.as_dict())
        supervisor = Supervisor(
            self.tools.paths, self.tools.runner, self.tools.signals, self.tools.syslog, health.on_daemons, health.look
        )
        with hints.listening(self.tools.paths, self.tools.runner.log) as heard:
            supervisor.wait(self.gained.running, heard)

    def take_down(self) -> None:
        """Undo in reverse order; raises DriverError (in-use) where the driver stays."""
        Stopping(self.tools, self.done, self.tell).take_down()

    def fail(self, error: BaseException) -> None:
        """After a failure: undo, then leave the reason where others look for it."""
        self.tools.signals.deafen()
        if isinstance(error, DriverError) and error.code is Code.STUCK:
            self.tools.runner.log.error(f"{error}; nothing more is touched", code=error.code.value)
            abandon(self.tools, self.tell, error)
            return
        begun = bool(self.told.steps)
        self.tools.runner.log.error(f"{error}; {'undoing what was done' if begun else 'nothing was touched'}")
        try:
            if begun:
                self.take_down()
            else:  # who died before us may have left the markers; what is installed is still so, and its digest true
                markers.withdraw(self.tools.paths.run, digest=False)
        except DriverError as second:
            if second.code is Code.STUCK:
                raise second from error
            self.tools.runner.log.error(f"not all could be undone: {second}")
        if self.gained.unloaded:
            self.tools.runner.log.error(
                f"{', '.join(self.gained.unloaded)} served before this start, was unloaded for it, and cannot return: "
                "its userspace went with its container"
            )
        if isinstance(error, DriverError):
            self.tell(phase=Phase.FAILED, failure=status.describe_failure(error))

    def tell(self, **changes: Any) -> None:
        """Write the status document; a full or read-only /run/nvidia is not a reason to die half-way."""
        self.told = self.told.changed(**changes)
        try:
            status.publish(self.tools.paths, self.told)
        except OSError as error:
            self.tools.runner.log.warning(f"status not written: {error}")


def init(tools: Tools, *, build_allowed: bool = True) -> None:
    """Lock, bring up, wait, take down. Raises Stopped at the end of a good life, DriverError otherwise."""
    tools.signals.install()
    become_subreaper()
    with pidlock.held(tools.paths.pid_file):
        sweep(tools.paths)
        Start(tools, build_allowed).run()


def sweep(paths: Paths) -> None:
    """Remove half-written files that a start left which was killed; only under the lock. Raises DriverError."""
    folders = (paths.run, paths.run / "validations", paths.own_run, paths.modprobe_d)
    try:
        files.sweep(*folders)
    except OSError as error:
        raise DriverError(
            Code.NODE_FILE, f"{error.filename} could not be removed: {error.strerror}", f"Make {paths.run} writable"
        ) from error


def build(tools: Tools, kernel_release: str | None, output: Path | None) -> ModuleSet:
    """Have the modules for a kernel in a folder, built unless they are there already; raises DriverError."""
    tools.signals.install()
    become_subreaper()
    described = image.read(tools.paths.root)
    release = KernelRelease(kernel_release or kernel.read(tools.paths.root).release).text
    version = (tools.config.driver_version or described.driver_version).text
    support = node.read_support(tools.paths, gpus.read(tools.paths)) if kernel_release is None else None
    wish = Wish(release, version, survey.choose_type(tools.config, version, support))
    return builder(tools, described, output or tools.config.modules_dir).find(wish)


def unload(tools: Tools) -> None:
    """Take away what a start that is no more has left: markers, daemons, modules, nodes, driver root, search path.

    Raises DriverError: already-running while a driver container lives, in-use while somebody uses the GPU.
    """
    with pidlock.held(tools.paths.pid_file):
        sweep(tools.paths)
        settle(tools)
        check_free(tools)
        markers.withdraw(tools.paths.run, digest=True)
        free(tools)
        devices.remove(tools.paths, devices.leftovers(tools.paths))
        propagation.settle(tools.paths)
        driverroot.clear(tools.paths, log=tools.runner.log)
        firmware.undo(tools.paths, firmware.recall(tools.paths))
        status.remove(tools.paths)
