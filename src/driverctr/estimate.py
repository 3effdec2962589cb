"""How long a plan will take, by what the starts before it took. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from driverctr import history
from driverctr.history import WHOLE, Start
from driverctr.modules import Source
from driverctr.plan import Plan, StepName
from driverctr.records import field, frozen


@frozen
class Estimate:
    """Seconds until ready, None where no start before had its modules from the same place, and by step.

    `starts` is how many such there were; each number is their median. Where there was none, the steps are told by
    starts with modules from elsewhere, but for the one that has the modules.
    """

    modules_from: str = ""
    starts: int = 0
    seconds: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)

    @property
    def rest(self) -> float:
        """Seconds of the steps that are known."""
        return sum(self.steps.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "modules_from": self.modules_from,
            "starts": self.starts,
            "seconds": self.seconds,
            "steps": dict(self.steps),
        }


def estimate(plan: Plan, starts: Sequence[Start]) -> Estimate:
    """By the starts that became ready with their modules from the place that is planned, if there were any.

    A plan that is blocked ends before its first step.
    """
    source = next((step.alternative for step in plan.steps if step.name is StepName.MODULES), "")
    if plan.blockers or not source:
        return Estimate()
    names = [step.name.value for step in plan.steps]
    alike = history.samples(starts, source)
    if alike:
        known = history.medians(starts, source)
        return Estimate(source, len(alike[WHOLE]), known[WHOLE], _of(known, names))
    kept = source == Source.LOADED
    others = [start for start in starts if (start.modules_from == Source.LOADED) == kept]
    without = [name for name in names if name != StepName.MODULES]
    return Estimate(source, 0, None, _of(history.medians(others), without))


def _of(known: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: known[name] for name in names if name in known}
