"""Ask the kernel whether it is true."""

from driverctr import verify
from driverctr.plan import PlannedStep, StepName
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


class Verify:
    """Ready is published only after this."""

    name = StepName.VERIFY
    interruptible = True

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Check to the depth set; raises DriverError that names everything that differs."""
        config = tools.config
        verify.check(tools.paths, gained.expected(), config.verify_depth, tools.runner, config.verify_timeout)
        return Outcome(None, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Nothing was changed."""
