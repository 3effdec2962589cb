"""Load the stack with the parameters asked for."""

import contextlib
from collections.abc import Sequence

from driverctr import devices, parameters
from driverctr.errors import Code, DriverError, code_of
from driverctr.facts import modules
from driverctr.modules import loaded, needed_of_host
from driverctr.modules.loaded import Record
from driverctr.plan import PlannedStep, StepName
from driverctr.preflight import FIND_IT, SHOW_THE_TREE
from driverctr.records import replace
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.steps.modules import furnish
from driverctr.steps.unload import unload_modules
from driverctr.survey import Facts


class Load:
    """The host's modules that ours need, then nvidia, nvidia-uvm, nvidia-modeset."""

    name = StepName.LOAD
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Write modprobe's configuration, load what is not there, and remember what was loaded how.

        A failure half-way unloads what came in; a driver that was there before stays. A signal lets the modprobe under
        way end, if it does in time; what was loaded by then is the undo's.
        """
        assert gained.build is not None
        for name, words in gained.parameters.items():
            parameters.write(tools.paths, name, words)
        names = gained.kept.missing if gained.kept else tuple(gained.parameters)
        if names:
            self._load(tools, facts, names, gained)
        if modules.read(tools.paths, modules.CORE) is not None:  # a signal may have come before
            _remember(tools, Record(gained.build, gained.parameters))
        lacks = {name: told for name in facts.beside if (told := self._load_beside(tools, name, gained))}
        return Outcome({}, replace(gained, lacks=lacks))

    def _load(self, tools: Tools, facts: Facts, names: Sequence[str], gained: Gained) -> None:
        """The host's modules first: one that does not load is told, and whether ours need it they tell themselves."""
        for name in gained.host_modules:
            if tools.signals.arrived is not None:
                return
            try:
                tools.kmod.load(name, tools.config.load_timeout)
            except DriverError as error:
                if error.code is Code.STUCK:
                    raise
                tools.runner.log.warning(
                    f"{name} of the host's kernel does not load: {error.message}", code=error.code.value
                )
        try:
            for name in names:
                if tools.signals.arrived is None:
                    tools.kmod.load(name, tools.config.load_timeout)
        except DriverError as error:
            if error.code is Code.STUCK:
                raise
            if tools.signals.arrived is not None:
                tools.runner.log.warning(
                    f"{error.message}; it is not tried again: a signal came", code=error.code.value
                )
                return
            if not gained.kept:
                self._clean_up(tools)
            _blame_the_host(tools, facts, name, gained, error)
            raise

    def _load_beside(self, tools: Tools, name: str, gained: Gained) -> str:
        """What a driver serves without, and is asked for: loaded if it can be, else why not; raises only what hangs."""
        if tools.signals.arrived is not None or modules.read(tools.paths, modules.kernel_name(name)) is not None:
            return ""
        try:
            if name not in gained.module_set.modules:
                raise DriverError(Code.NO_MODULES, f"{gained.module_set.folder} has none")
            if gained.kept and not gained.kept.missing:
                furnish(tools, gained.module_set, tuple(gained.parameters))
            parameters.write(tools.paths, name, parameters.user_words(tools.paths, name))
            tools.kmod.load(name, tools.config.load_timeout)
        except (DriverError, OSError) as error:
            if isinstance(error, DriverError) and error.code is Code.STUCK:
                raise
            return f"{name} was asked for and is not loaded: {error}"
        return ""

    def _clean_up(self, tools: Tools) -> None:
        try:
            unload_modules(tools)
        except DriverError as second:
            tools.runner.log.warning(f"what was loaded stays: {second}", code=second.code.value)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Unload the stack; raises DriverError where it stays, maybe held: then the nodes are needed again."""
        try:
            unload_modules(tools)
        except DriverError as error:
            if error.code is not Code.STUCK:
                devices.create(tools.paths, devices.wanted(tools.paths))
            raise


def _remember(tools: Tools, record: Record) -> None:
    """Without it the next start judges by what the kernel shows, and by the files of the build."""
    try:
        loaded.write(tools.paths, record)
    except OSError as error:
        tools.runner.log.warning(f"what was loaded could not be written down: {error}", code=code_of(error))


def _blame_the_host(tools: Tools, facts: Facts, name: str, gained: Gained, error: DriverError) -> None:
    """Raise DriverError (load-failed) where `name` lacks a symbol since the host lacks a module: ours is not wrong."""
    missing: list[str] = []
    if error.code is Code.UNKNOWN_SYMBOL:
        with contextlib.suppress(DriverError):
            needed = needed_of_host(gained.module_set, (name,))
            missing = [other for other in needed if not modules.is_available(tools.paths, other)]
    if missing:
        raise DriverError(
            Code.LOAD_FAILED,
            f"{', '.join(missing)} of the host's kernel, which our {name} needs, is not loaded: {error.message}",
            FIND_IT if facts.host_modules else SHOW_THE_TREE,
        ) from error
