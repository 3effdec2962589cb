"""A reload that waits until nobody uses the driver: changed parameters of modules that serve."""

from collections.abc import Mapping, Sequence
from typing import Any

from driverctr.errors import DriverError
from driverctr.plan import describe_pending
from driverctr.records import frozen
from driverctr.steps import Tools
from driverctr.steps.unload import check_free


class ReloadDue(Exception):
    """Nobody uses the driver any more: the wait ends, and the driver is brought up anew."""


@frozen
class Pending:
    """What is to change, each as the plan named it."""

    tools: Tools
    stale: Sequence[str]

    def look(self) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        """Why the reload is still pending, and who uses the driver, for the status; raises ReloadDue."""
        try:
            check_free(self.tools)
        except DriverError as error:
            return describe_pending(self.stale, error.message), error.in_use
        raise ReloadDue
