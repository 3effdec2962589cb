"""Ask the kernel whether it is true."""

from dataclasses import replace

from driverctr import firmware, smi, verify
from driverctr.config import Depth
from driverctr.facts import gpus, modules
from driverctr.plan import PlannedStep, StepName
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


class Verify:
    """Ready is published only after this."""

    name = StepName.VERIFY
    interruptible = True

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Check to the depth set; raises DriverError that names everything that differs."""
        config, paths = tools.config, tools.paths
        bound = tuple(gpu.address for gpu in gpus.read(paths) if gpu.driver == modules.CORE)
        gained = replace(gained, gpus=bound, firmware_path=firmware.read_path(paths))
        verify.refuse(verify.look(paths, gained.expected(config.verify_gpus), config.verify_depth))
        if config.verify_depth is Depth.SMI:
            silent = smi.check(paths, tools.runner, config.verify_timeout, config.verify_gpus)
            gained = replace(gained, silent_gpus=silent)
        return Outcome(None, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Nothing was changed."""
