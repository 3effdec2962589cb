"""Load the stack with the parameters asked for."""

from dataclasses import replace

from driverctr import devices, moduletree, parameters
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.modules import elf
from driverctr.plan import PlannedStep, StepName, modules_to_load
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.steps.unload import unload_modules
from driverctr.survey import Facts


class Load:
    """The host's modules that ours need, then nvidia, nvidia-uvm, nvidia-modeset."""

    name = StepName.LOAD
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Write the tree and modprobe's configuration, then load; a failure half-way unloads what came in."""
        module_set = gained.module_set
        assert module_set is not None
        names = modules_to_load(tools.config, facts)
        files = {name: module_set.folder / module_set.modules[name].file for name in names}
        asked = {}
        for name in names:
            asked[name] = parameters.asked(tools.paths, name, elf.read(files[name]).parameters)
            parameters.write(tools.paths, name, asked[name])
        release = facts.wish.kernel_release
        host = moduletree.host_place(tools.paths, release)
        first = moduletree.assemble(tools.paths, release, files, host, tools.kmod)
        try:
            for name in (*first, *names):
                tools.kmod.load(name, tools.config.load_timeout)
        except DriverError as error:
            if error.code is Code.STUCK:
                raise
            try:
                unload_modules(tools)
            except DriverError as second:
                tools.runner.log.warning(f"what was loaded stays: {second}")
            raise DriverError(error.code, error.message, _remedy(tools, facts) or error.remedy) from error
        return Outcome({}, replace(gained, parameters=asked))

    def undo(self, tools: Tools, data: Undo) -> None:
        """Unload the stack; raises DriverError where it stays, maybe held: then the nodes are needed again."""
        try:
            unload_modules(tools)
        except DriverError as error:
            if error.code is not Code.STUCK:
                devices.create(tools.paths, devices.wanted(tools.paths))
            raise


def _remedy(tools: Tools, facts: Facts) -> str:
    """What to do about a module of the host's that could not be had."""
    lacking = [name for name in ("drm",) if not modules.is_available(tools.paths, name)]
    if not lacking or facts.host_modules:
        return ""
    return (
        f"{', '.join(lacking)} of the host's kernel is not loaded and the host's module tree is not visible: "
        "run the container with --pid=host, or with -v /lib/modules:/lib/modules:ro"
    )
