"""One class a step: `apply` acts and tells what undoes it, `undo` takes that as plain data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from driverctr import daemons
from driverctr.config import Config
from driverctr.daemons import Daemon, Running
from driverctr.features import NO_FEATURES, Features
from driverctr.hashing import Hashes
from driverctr.kmod import Kmod
from driverctr.modules import ModuleSet, Source
from driverctr.modules.loaded import Build, Loaded
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, StepName
from driverctr.records import field, frozen, replace
from driverctr.run import Runner
from driverctr.settings import GpuNeed
from driverctr.signals import Budget, Signals
from driverctr.survey import Facts
from driverctr.syslog import Syslog
from driverctr.verify import Expected

Undo = Mapping[str, Any]
"""JSON-like: what a step did, for its undo."""


@frozen
class Tools:
    """What every step acts with."""

    paths: Paths
    config: Config
    runner: Runner
    kmod: Kmod
    signals: Signals
    syslog: Syslog
    budget: Budget
    hashes: Hashes = field(default_factory=Hashes)

    def start_daemon(self, daemon: Daemon) -> Running:
        """Start a daemon, within the time a load has, or a stop that was asked for leaves; raises DriverError.

        What is left of a start that failed or was cut off is stopped: a daemon that forks lies in no group of ours.
        """
        limit = self.config.load_timeout
        try:
            return daemons.start(self.paths, daemon, self.runner, self.syslog, limit, self.budget.wait_unless_hurried)
        except BaseException:
            with self.signals.held():
                self._stop_half_started(daemon)
            raise

    def _stop_half_started(self, daemon: Daemon) -> None:
        """It has its pid file before it opens the GPUs, and would keep the modules and every later start of it away."""
        if (left := daemons.find(self.paths, daemon)) is None:
            return
        self.stop_daemon(left)
        lives = daemons.find(self.paths, daemon) == left
        told = "hangs in the kernel and is left" if lives else "stopped"
        self.runner.log.warning(f"{daemon.name} (pid {left.pid}), which was not up yet: {told}")

    def stop_daemon(self, running: Running) -> None:
        """End a daemon, by force when its time is over or haste is asked."""
        limit = self.budget.for_others(daemons.STOP_LIMIT, daemons.STOP_SHARE)
        kill_limit = min(daemons.KILL_LIMIT, max(self.budget.LEAST, self.budget.for_an_act() - limit))
        daemons.stop(self.paths, running, limit, self.signals.wait_readable, kill_limit=kill_limit)


@frozen
class Gained:
    """What earlier steps of this start have brought about.

    `build` is the set of modules and the key it has, `source` where it came from, `kept` what of it was in the kernel
    already and stays. `gpus` are the PCI addresses bound to the driver, `silent_gpus` those that do not answer
    nvidia-smi although enough others do, `gpus_answering` whether each did when it was asked; `unloaded` the modules of
    a former driver that went, `lost` the state of the
    GPUs that went with it. `substitutes` is what stands in place of our own userspace, by path below the root.
    `host_modules` are the host's to be loaded before ours, `lacks` tells of modules asked for beside why they are not;
    `features` are the labels that the node has meanwhile.
    """

    build: Build | None = None
    source: Source | None = None
    kept: Loaded | None = None
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    running: tuple[Running, ...] = ()
    gpus: tuple[str, ...] = ()
    silent_gpus: tuple[str, ...] = ()
    gpus_answering: Mapping[str, bool] = field(default_factory=dict)
    firmware_path: str = ""
    unloaded: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    substitutes: Mapping[str, Path] = field(default_factory=dict)
    host_modules: tuple[str, ...] = ()
    lacks: Mapping[str, str] = field(default_factory=dict)
    features: Features = NO_FEATURES

    @property
    def module_set(self) -> ModuleSet:
        """The set of modules; there is one once the step that has them is done."""
        assert self.build is not None
        return self.build.module_set

    def expected(self, need: GpuNeed) -> Expected:
        """What the kernel must say from now on."""
        module_set = self.module_set
        build_ids = {name: module_set.modules[name].build_id for name in self.parameters}
        return Expected(
            module_set.driver_version,
            build_ids,
            self.parameters,
            self.running,
            self.gpus,
            need.least,
            root=True,
            firmware_path=self.firmware_path,
            lacks=self.lacks,
        )

    def lasting(self, need: GpuNeed) -> Expected:
        """The same without the daemons: those come and go while the driver serves."""
        return replace(self.expected(need), running=())


@frozen
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
