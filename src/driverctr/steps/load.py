"""Load the stack with the parameters asked for."""

from collections.abc import Sequence

from driverctr import devices, moduletree, parameters
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.modules import ModuleSet, loaded
from driverctr.modules.loaded import Record
from driverctr.plan import PlannedStep, StepName
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.steps.unload import unload_modules
from driverctr.survey import Facts


class Load:
    """The host's modules that ours need, then nvidia, nvidia-uvm, nvidia-modeset."""

    name = StepName.LOAD
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Write modprobe's configuration and the tree, load what is not there, and remember what was loaded how.

        A failure half-way unloads what came in; a driver that was there before stays. A signal lets the modprobe under
        way end, if it does in time; what was loaded by then is the undo's.
        """
        assert gained.build is not None
        for name, words in gained.parameters.items():
            parameters.write(tools.paths, name, words)
        names = gained.kept.missing if gained.kept else tuple(gained.parameters)
        if names:
            self._load(tools, facts, names, furnish(tools, gained.module_set, tuple(gained.parameters)), gained)
        _remember(tools, Record(gained.build, gained.parameters))
        return Outcome({}, gained)

    def _load(self, tools: Tools, facts: Facts, names: Sequence[str], first: Sequence[str], gained: Gained) -> None:
        try:
            for name in (*first, *names):
                if tools.signals.arrived is None:
                    tools.kmod.load(name, tools.config.load_timeout)
        except DriverError as error:
            if error.code is Code.STUCK:
                raise
            if tools.signals.arrived is not None:
                tools.runner.log.warning(f"{error.message}; it is not tried again: a signal came")
                return
            if not gained.kept:
                self._clean_up(tools)
            raise DriverError(error.code, error.message, _remedy(tools, facts) or error.remedy) from error

    def _clean_up(self, tools: Tools) -> None:
        try:
            unload_modules(tools)
        except DriverError as second:
            tools.runner.log.warning(f"what was loaded stays: {second}")

    def undo(self, tools: Tools, data: Undo) -> None:
        """Unload the stack; raises DriverError where it stays, maybe held: then the nodes are needed again."""
        try:
            unload_modules(tools)
        except DriverError as error:
            if error.code is not Code.STUCK:
                devices.create(tools.paths, devices.wanted(tools.paths))
            raise


def furnish(tools: Tools, module_set: ModuleSet, names: Sequence[str]) -> list[str]:
    """Put the modules where modprobe finds them, here and in the driver root; returns the host's to be loaded first.

    Raises DriverError (load-failed, no-space).
    """
    release = module_set.kernel_release
    files = {name: module_set.modules[name].file for name in names}
    host = moduletree.host_place(tools.paths, release)
    return moduletree.assemble(tools.paths, release, files, host, tools.kmod)


def _remember(tools: Tools, record: Record) -> None:
    """Without it the next start judges by what the kernel shows, and by the files of the build."""
    try:
        loaded.write(tools.paths, record)
    except OSError as error:
        tools.runner.log.warning(f"what was loaded could not be written down: {error}")


def _remedy(tools: Tools, facts: Facts) -> str:
    """What to do about a module of the host's that could not be had."""
    lacking = [name for name in ("drm",) if not modules.is_available(tools.paths, name)]
    if not lacking or facts.host_modules:
        return ""
    return (
        f"{', '.join(lacking)} of the host's kernel is not loaded and the host's module tree is not visible: "
        "run the container with --pid=host, or with -v /lib/modules:/lib/modules:ro"
    )
