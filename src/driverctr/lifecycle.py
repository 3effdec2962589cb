"""The line of DESIGN section 1: the way up, the wait, the way down; and the verbs that do only a part of it."""

from pathlib import Path
from typing import Any

from driverctr import devices, files, firmware, markers, monitoring, pidlock, status, survey, wishes
from driverctr.bringup import BringUp
from driverctr.chronicle import Chronicle
from driverctr.errors import Code, DriverError, Stopped, code_of, of_bug, stop_behind
from driverctr.facts import gpus, kernel, supported
from driverctr.history import Outcome
from driverctr.modules import ModuleSet, Source, Wish, failures, loaded, pins
from driverctr.monitoring import Watch, unwatched
from driverctr.mounts import driverroot, propagation
from driverctr.paths import Paths
from driverctr.persist import locked, persist
from driverctr.plan import StepName
from driverctr.records import field, mutable
from driverctr.run import become_subreaper
from driverctr.status import Phase, Status, StepTime
from driverctr.steps import Step, Tools, Undo
from driverctr.steps.markers import withdraw, withdraw_labels
from driverctr.steps.modules import builder
from driverctr.steps.unload import check_free, free, settle
from driverctr.stopping import Stopping, abandon
from driverctr.userspace import image
from driverctr.versions import KernelRelease


@mutable
class Start:
    """One start: the way up, the wait, the way down, and what is told of it."""

    tools: Tools
    build_allowed: bool = True
    watch: Watch = unwatched
    told: Status = field(init=False)
    way_up: BringUp = field(init=False)
    chronicle: Chronicle = field(init=False)

    def __post_init__(self) -> None:
        """The way up tells its steps here."""
        self.chronicle = Chronicle(self.tools)
        before = status.last_failure(status.read(self.tools.paths))
        self.told = self.watch(status.begin(self.tools.paths).changed(last_failure=before))
        self.way_up = BringUp(self.tools, self.build_allowed, self.tell_step)

    @property
    def done(self) -> list[tuple[Step, Undo]]:
        """What was done, to be undone in reverse."""
        return self.way_up.done

    def run(self) -> None:
        """Bring the driver up, wait, take it down; ends by raising Stopped, DriverError, or a bug's exception."""
        try:
            while True:
                self.bring_up()
                self.wait()
                self.tools.runner.log.info("nobody uses the driver any more: it is loaded anew, as was pending")
                self.tell(phase=Phase.STARTING, steps=(), attempt=1, expected={}, store="", store_reason="", in_use=())
        except BaseException as error:
            if stopped := stop_behind(error):
                stopped.was_ready = any(step.name is StepName.PUBLISH for step, _ in self.done)
                self.chronicle.note(self.told, Outcome.STOPPED)
                self.take_down()
                raise stopped from None
            try:
                self.fail(error)
            except Stopped:  # the first signal, in the moment before `fail` is deaf to it; a second is never raised
                self.fail(error)
            raise

    def bring_up(self) -> None:
        """Make the driver ready, and say so; one that was already there gets its files put in place after that."""
        persist(self.tools, self.way_up, lambda: self.told, self.tell)
        pending, rollback = self.way_up.pending, self.rollback()
        reasons = (*self.lasting(), *filter(None, (pending,)))
        over = {"failure": {}, "last_failure": self.told.failure or self.told.last_failure, "in_use": ()}
        expected = self.way_up.gained.lasting(self.tools.config.verify_gpus).as_dict()
        self.tell(phase=Phase.READY, degraded=reasons, pending=pending, rollback=rollback, expected=expected, **over)
        status.clear_termination(self.tools.paths)
        self.chronicle.note(self.told, Outcome.READY)
        for reason in reasons:
            self.tools.runner.log.warning(f"degraded: {reason}")
        self.remember_good()
        self.tools.runner.log.info("ready; waiting for a signal")

    def remember_good(self) -> None:
        """What became ready is what a later start returns to; a store that cannot be written is no reason to fail."""
        self.way_up.take_back()
        try:
            self.way_up.replace_unfit()
        except DriverError as error:
            self.tools.runner.log.warning(f"what serves is not kept in the store: {error}", code=error.code.value)
        gained, store = self.way_up.gained, self.way_up.facts.supply.store
        if store is None or gained.build is None or gained.build.key is None or gained.source is Source.LAST_GOOD:
            return
        if gained.kept is not None and gained.kept.stale:
            return
        try:
            pins.record_good(store.folder, pins.Good(gained.build.key, gained.parameters))
        except DriverError as error:
            self.tools.runner.log.warning(f"what serves is not pinned: {error}", code=error.code.value)

    def wait(self) -> None:
        """Supervise until a signal, or until nobody uses a driver that is to be loaded anew.

        What only a driver that serves needs is imported once it does.
        """
        with self.tools.signals.held():
            from driverctr import serving

        gained, store = self.way_up.gained, self.way_up.facts.supply.store
        serving.serve(self.tools, gained, store, self.lasting(), self.tell)

    def lasting(self) -> tuple[str, ...]:
        """Why the driver is degraded for as long as this start lives."""
        gained = self.way_up.gained
        silent = tuple(f"GPU {address} does not answer nvidia-smi" for address in gained.silent_gpus)
        return (*filter(None, (self.rollback(),)), *silent)

    def rollback(self) -> str:
        """What serves instead of what is wanted, and why; "" where that serves."""
        return self.way_up.describe_rollback() if self.way_up.gained.source is Source.LAST_GOOD else ""

    def take_down(self) -> None:
        """Undo in reverse order; raises DriverError (in-use) where the driver stays."""
        found_loaded = self.way_up.gained.kept is not None
        Stopping(self.tools, self.done, self.tell, found_loaded).take_down()

    def fail(self, error: BaseException) -> None:
        """After a failure: undo, then leave the reason where others look for it."""
        self.tools.signals.deafen()
        told, step = error if isinstance(error, DriverError) else of_bug(error), self.told.step
        self.chronicle.note(self.told, Outcome.FAILED, told)
        if isinstance(error, DriverError) and error.code is Code.STUCK:
            self.tools.runner.log.error(f"{error}; nothing more is touched", code=error.code.value)
            abandon(self.tools, self.tell, error)
            return
        begun = bool(self.told.steps or self.done)
        self.tools.runner.log.error(
            f"{error}; {'undoing what was done' if begun else 'nothing was touched'}", code=told.code.value
        )
        try:
            if begun:
                self.take_down()
            else:  # who died before us may have left the markers; what is installed is still so, and its digest true
                withdraw(self.tools, digest=False)
        except DriverError as second:
            if second.code is Code.STUCK:
                raise second from error
            self.tools.runner.log.error(f"not all could be undone: {second}", code=second.code.value)
        if self.way_up.gained.unloaded:
            former = self.way_up.former
            self.tools.runner.log.error(
                f"{', '.join(self.way_up.gained.unloaded)} served before this start, was unloaded for it, and cannot "
                f"return: {former.lacks if former and former.lacks else 'its userspace went with its container'}",
                code=told.code.value,
            )
        in_use = self.way_up.blocked_by(told)
        self.tell(phase=Phase.FAILED, step=step, failure=status.failed_now(told), in_use=in_use)

    def tell_step(self, *, took: tuple[str, float] | None = None, **changes: Any) -> None:
        """Tell of the way up: a step that was done, and what it changed."""
        if took is not None:
            gained = self.way_up.gained
            steps = (*self.told.steps, StepTime(*took, "done"))
            if gained.build is not None:
                changes |= {
                    "driver_version": gained.module_set.driver_version,
                    "module_type": gained.module_set.module_type,
                }
            changes |= {"steps": steps, "modules_from": gained.source or "", "lost": gained.lost}
            changes |= {"gpus_answering": gained.gpus_answering}
            self.told = self.told.changed(**changes)
        else:
            self.tell(**changes)

    def tell(self, **changes: Any) -> None:
        """Write the status document; a full or read-only /run/nvidia is not a reason to die half-way."""
        former, self.told = self.told.phase, self.told.changed(**changes)
        if former is Phase.WAITING_FOR_GPU:
            self.chronicle.begin_anew()
        self.told = self.watch(self.told)
        try:
            status.publish(self.tools.paths, self.told)
        except OSError as error:
            self.tools.runner.log.warning(f"status not written: {error}", code=code_of(error))


def init(tools: Tools, *, build_allowed: bool = True) -> None:
    """Lock, bring up, wait, take down. Raises Stopped at the end of a good life, DriverError otherwise."""
    tools.signals.install()
    become_subreaper()
    with locked(tools):
        sweep(tools.paths)
        if tools.paths.former_userspace.is_dir():
            from driverctr.userspace import substitute

            substitute.uncover(tools.paths, tools.runner)
        markers.begin(tools.paths.run)
        withdraw_labels(tools)
        with monitoring.watched(tools) as watch:
            Start(tools, build_allowed, watch).run()


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
    """Build the modules for a kernel into a folder; raises DriverError."""
    tools.signals.install()
    become_subreaper()
    described = image.read(tools.paths.root)
    release = KernelRelease(kernel_release or kernel.read(tools.paths.root).release).text
    version = (tools.config.driver_version or described.driver_version).text
    support = supported.of_gpus(tools.paths, gpus.read(tools.paths)) if kernel_release is None else None
    wish = Wish(release, version, wishes.choose_type(tools.config, version, support))
    return builder(tools, described, output or tools.config.modules_dir).find(wish)


def take(tools: Tools, source: Path, kernel_release: str | None, output: Path | None) -> ModuleSet:
    """Take modules for a kernel that were made elsewhere into a folder; raises DriverError."""
    from driverctr.modules.given import Given

    tools.signals.install()
    described = image.read(tools.paths.root)
    release = KernelRelease(kernel_release or kernel.read(tools.paths.root).release).text
    version = (tools.config.driver_version or described.driver_version).text
    provider = Given(source, survey.TO_LOAD, tools.runner, output or tools.config.modules_dir)
    return provider.find(release, version, tools.config.module_type)


def unload(tools: Tools) -> None:
    """Take away what a start that is no more has left: markers, daemons, modules, nodes, driver root, search path.

    Raises DriverError: already-running while a driver container lives, in-use while somebody uses the GPU. Raises
    Stopped: before anything was touched, or once all is away.
    """
    from driverctr import kernelhook

    tools.signals.install()
    with pidlock.held(tools.paths.pid_file):
        sweep(tools.paths)
        settle(tools)
        check_free(tools)
        with tools.signals.held():
            withdraw(tools, digest=True)
            free(tools)
            devices.remove(tools.paths, devices.leftovers(tools.paths))
            loaded.forget(tools.paths)
            failures.forget(tools.paths)
            propagation.settle(tools.paths)
            driverroot.clear(tools.paths, log=tools.runner.log)
            firmware.undo(tools.paths, firmware.recall(tools.paths))
            kernelhook.remove(tools.paths, tools.runner.log)
            monitoring.forget(tools)
            status.remove(tools.paths)
