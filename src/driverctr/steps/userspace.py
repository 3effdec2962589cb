"""The userspace of the version that returns, in place of our own; planned only where that is another version."""

from driverctr.mounts import propagation
from driverctr.mounts.syscalls import Syscalls
from driverctr.plan import PlannedStep, StepName
from driverctr.records import replace
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


class Userspace:
    """Before anything of the driver runs: programs, libraries and firmware must be of the modules' version.

    What it needs is imported here: hardly a start does.
    """

    name = StepName.USERSPACE
    interruptible = True

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Copy what the store keeps to where it is shown from, each file hashed on the way; raises DriverError."""
        from driverctr.modules.userspaces import Userspaces
        from driverctr.userspace import listing
        from driverctr.userspace.substitute import Substitute

        former, store = facts.supply.former, facts.supply.store
        assert former is not None and former.userspace is not None and store is not None
        kept = Userspaces(store)
        propagation.settle(tools.paths)
        substitutes = Substitute(tools.paths, tools.runner, Syscalls()).put(
            listing.read(tools.paths.root),
            former.userspace,
            lambda item, target: kept.copy_out(item, target, tools.signals.check),
        )
        return Outcome({}, replace(gained, substitutes=substitutes))

    def undo(self, tools: Tools, data: Undo) -> None:
        """Our own serves again."""
        from driverctr.userspace.substitute import Substitute

        Substitute(tools.paths, tools.runner, Syscalls()).take_back()
