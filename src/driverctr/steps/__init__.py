"""One class a step: `apply` acts and tells what undoes it, `undo` takes that as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from driverctr import daemons
from driverctr.config import Config, GpuNeed
from driverctr.daemons import Running
from driverctr.kmod import Kmod
from driverctr.modules import ModuleSet
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, StepName
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.survey import Facts
from driverctr.syslog import Syslog
from driverctr.verify import Expected

Undo = Mapping[str, Any]
"""JSON-like: what a step did, for its undo."""


@dataclass(frozen=True)
class Tools:
    """What every step acts with."""

    paths: Paths
    config: Config
    runner: Runner
    kmod: Kmod
    signals: Signals
    syslog: Syslog
    budget: Budget

    def stop_daemon(self, running: Running) -> None:
        """End a daemon, by force when its time is over or haste is asked."""
        daemons.stop(self.paths, running, self.budget.half_for_others(daemons.STOP_LIMIT), self.signals.wait_readable)


@dataclass(frozen=True)
class Gained:
    """What earlier steps of this start have brought about.

    `gpus` are the PCI addresses bound to the driver, `silent_gpus` those that do not answer nvidia-smi although enough
    others do; `unloaded` the modules of a former driver that went, `lost` the state of the GPUs that went with it.
    """

    module_set: ModuleSet | None = None
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    running: tuple[Running, ...] = ()
    gpus: tuple[str, ...] = ()
    silent_gpus: tuple[str, ...] = ()
    firmware_path: str = ""
    unloaded: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def expected(self, need: GpuNeed) -> Expected:
        """What the kernel must say from now on."""
        assert self.module_set is not None
        build_ids = {name: self.module_set.modules[name].build_id for name in self.parameters}
        return Expected(
            self.module_set.driver_version,
            build_ids,
            self.parameters,
            self.running,
            self.gpus,
            need.least,
            root=True,
            firmware_path=self.firmware_path,
        )


@dataclass(frozen=True)
class Outcome:
    """What a step leaves behind: data for its undo (None: nothing to undo) and what was gained."""

    undo: Undo | None
    gained: Gained


class Step(Protocol):
    """One step of the plan."""

    name: StepName
    interruptible: bool
    """Whether a signal may end it half-way; otherwise it waits for the step's end."""

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Act, testing the precondition again; raises DriverError."""
        ...

    def undo(self, tools: Tools, data: Undo) -> None:
        """Take back what `data` says was done; does nothing where it is gone already. Raises DriverError."""
        ...
