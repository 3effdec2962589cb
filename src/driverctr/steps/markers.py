"""Withdraw at the start, publish at the end: ready means true."""

from driverctr import features, markers
from driverctr.features import Features
from driverctr.modules import Source
from driverctr.plan import KEEP_DIGEST, PlannedStep, StepName
from driverctr.records import replace
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


def withdraw(tools: Tools, *, digest: bool) -> None:
    """Nothing says any more that our driver serves: markers.withdraw, and the labels of Node Feature Discovery."""
    markers.withdraw(tools.paths.run, digest=digest)
    withdraw_labels(tools)


def withdraw_labels(tools: Tools) -> None:
    """A node is labelled with a driver that serves only."""
    features.withdraw(features.place(tools.paths, tools.config.nfd_features_dir), tools.runner.log)


def describe(tools: Tools, facts: Facts, gained: Gained) -> Features:
    """The labels of what was loaded, whichever version that is."""
    served, former = gained.module_set, facts.supply.former
    cuda_version = facts.image.cuda_version if facts.image.driver_version.text == served.driver_version else ""
    if gained.substitutes and former is not None and former.userspace is not None:
        cuda_version = former.userspace.cuda_version
    file = features.place(tools.paths, tools.config.nfd_features_dir)
    if file is None and "NFD_FEATURES_DIR" in tools.config.given:
        tools.runner.log.warning(f"no labels: NFD_FEATURES_DIR={tools.config.nfd_features_dir} is no folder here")
    return features.of_driver(served.driver_version, served.module_type, served.kernel_release, cuda_version, file)


class Withdraw:
    """Both markers go before anything is touched: a crash from here on cannot be believed ready.

    The operator's digest goes before a full install, and stays where the driver that it speaks of stays.
    """

    name = StepName.WITHDRAW
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Remove what an earlier start, or the operator's probe, left."""
        withdraw(tools, digest=planned.alternative != KEEP_DIGEST)
        markers.write_daemons_status(tools.paths.run, ready=False)
        return Outcome(None, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Nothing was added."""


class Publish:
    """The markers, the operator's digest, and the labels."""

    name = StepName.PUBLISH
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Say ready, in the formats of the reference."""
        config = tools.config
        markers.write_daemons_status(tools.paths.run, ready=True)
        markers.write_ready(tools.paths.run, gds=config.gds, gdrcopy=config.gdrcopy, rdma=config.rdma)
        if gained.source is not Source.LAST_GOOD:  # what the operator wished for is not what is installed
            markers.write_digest(tools.paths.run, config.config_digest)
        labels = describe(tools, facts, gained)
        labels.publish(tools.runner.log)
        return Outcome({}, replace(gained, features=labels))

    def undo(self, tools: Tools, data: Undo) -> None:
        """First at stop: nobody may believe in a driver that is going away."""
        withdraw(tools, digest=False)
