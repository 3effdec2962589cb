"""Withdraw at the start, publish at the end: ready means true."""

from driverctr import markers
from driverctr.modules import Source
from driverctr.plan import KEEP_DIGEST, PlannedStep, StepName
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


class Withdraw:
    """Both markers go before anything is touched: a crash from here on cannot be believed ready.

    The operator's digest goes before a full install, and stays where the driver that it speaks of stays.
    """

    name = StepName.WITHDRAW
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Remove what an earlier start, or the operator's probe, left."""
        markers.withdraw(tools.paths.run, digest=planned.alternative != KEEP_DIGEST)
        markers.write_daemons_status(tools.paths.run, ready=False)
        return Outcome(None, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Nothing was added."""


class Publish:
    """The markers, and last of all the operator's digest."""

    name = StepName.PUBLISH
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Say ready, in the formats of the reference."""
        config = tools.config
        markers.write_daemons_status(tools.paths.run, ready=True)
        markers.write_ready(tools.paths.run, gds=config.gds, gdrcopy=config.gdrcopy, rdma=config.rdma)
        if gained.source is not Source.LAST_GOOD:  # what the operator wished for is not what is installed
            markers.write_digest(tools.paths.run, config.config_digest)
        return Outcome({}, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """First at stop: nobody may believe in a driver that is going away."""
        markers.withdraw(tools.paths.run, digest=False)
