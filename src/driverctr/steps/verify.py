"""Ask the kernel whether it is true."""

from driverctr import firmware, smi, verify
from driverctr.depth import Depth
from driverctr.facts import gpus, modules
from driverctr.plan import PlannedStep, StepName
from driverctr.records import replace
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


def to_serve(tools: Tools, facts: Facts, module_type: str) -> list[str]:
    """The GPUs the driver should serve: not those another driver has, nor those preflight found it cannot drive.

    One whose probe failed is among them.
    """
    support = facts.node.support or {}
    left_out = {address for address, seen in support.items() if not seen.drives(module_type)}
    return [gpu.address for gpu in gpus.read(tools.paths) if not gpu.taken_by and gpu.address not in left_out]


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
            ours = to_serve(tools, facts, gained.module_set.module_type)
            silent = smi.check(tools.runner, config.verify_timeout, config.verify_gpus, ours)
            answering = {address: address not in silent for address in ours}
            gained = replace(gained, silent_gpus=silent, gpus_answering=answering)
        return Outcome(None, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Nothing was changed."""
