"""`driverctr plan`: what is true, what is wanted, what will be done and how long it takes, and what keeps it back."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from driverctr import history
from driverctr import plan as plans
from driverctr.conceal import printed
from driverctr.config import Config
from driverctr.deferred import shutil
from driverctr.estimate import Estimate, estimate
from driverctr.facts import holders
from driverctr.facts.gpus import Gpu
from driverctr.history import Start
from driverctr.modules import Source
from driverctr.paths import Paths
from driverctr.plan import Plan, PlannedStep, StepName
from driverctr.records import field, frozen
from driverctr.steps import Tools
from driverctr.survey import Facts

if TYPE_CHECKING:
    import argparse

NAMES = 14
"""Columns of names of facts and steps."""
TIMES = 9
"""Columns of a step's time."""

WAYS = {
    Source.LOADED: "keep what is loaded",
    Source.STORE: "the store",
    Source.ON_DISK: "the modules on disk",
    Source.REMOTE: "fetch them from REMOTE_URL",
    Source.BUILD: "build them",
    Source.LAST_GOOD: "go back to what served last",
}
"""What comes next where a way fails."""

LIKE = {
    Source.LOADED: "kept what was loaded",
    Source.STORE: "had the modules from the store",
    Source.ON_DISK: "took the modules on disk",
    Source.REMOTE: "fetched the modules",
    Source.BUILD: "built the modules",
    Source.LAST_GOOD: "went back to what served last",
}
"""What a start did, in a sentence."""


@frozen
class View:
    """A plan for people: what is `found`, by name, how long it may take, and the `way_back` if it does not serve."""

    plan: Plan
    found: Mapping[str, str] = field(default_factory=dict)
    way_back: str = ""
    estimate: Estimate = field(default_factory=Estimate)

    def as_dict(self) -> dict[str, Any]:
        """For programs; docs/plan.md explains each field."""
        beside = {"found": dict(self.found), "way_back": self.way_back, "estimate": self.estimate.as_dict()}
        return {**self.plan.as_dict(), **beside}


def show(tools: Tools, arguments: "argparse.Namespace") -> int:
    """Print what init would do; exit status 0 even if something blocks, which the output says."""
    seen = find(tools.paths, tools.config)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    sys.stdout.write(printed(seen.as_dict() if arguments.json else describe(seen, width)))
    return 0


def find(paths: Paths, config: Config) -> View:
    """The plan of a start on this node now; raises DriverError as the survey does."""
    from driverctr.survey import survey

    facts = survey(paths, config)
    place = history.folder(paths, config)
    return look(plans.make(config, facts), facts, history.read(place) if place else ())


def look(plan: Plan, facts: Facts, starts: Sequence[Start] = ()) -> View:
    """What there is to be told of a plan; pure."""
    return View(plan, describe_found(facts), describe_way_back(plan, facts), estimate(plan, starts))


def describe_found(facts: Facts) -> dict[str, str]:
    """What is true now, as far as it matters here."""
    support = facts.node.support or {}
    names = {address: seen.name for address, seen in support.items()}
    gpus = [f"{gpu} {names.get(gpu.address, '')}".strip() + f", {_describe_binding(gpu)}" for gpu in facts.gpus]
    loaded = [f"{module.name} {module.version}".strip() for module in facts.stack.values()]
    daemons = [f"{running.daemon.name} (pid {running.pid})" for running in facts.running]
    layers = len(facts.driver_root.layers)
    return {
        "host": str(facts.node.host) if facts.node.host else "not to be seen from here (run with --pid=host)",
        "kernel": facts.wish.kernel_release,
        "GPU": "; ".join(gpus) or "none on the PCI bus",
        "loaded": ", ".join(loaded) or "no module of the driver",
        "users": holders.describe(facts.in_use) if facts.in_use else "nobody uses the driver",
        "daemons": ", ".join(daemons) or "none of ours runs",
        "driver root": f"{layers} mounted at /run/nvidia/driver" if layers else "not mounted",
    }


def describe_way_back(plan: Plan, facts: Facts) -> str:
    """What happens where what is planned does not serve, and something serves now or served last."""
    former = facts.supply.former
    chosen = next((step.alternative for step in plan.steps if step.name is StepName.MODULES), "")
    if former is None or chosen in facts.supply.kept:
        return ""
    if former.record is None:
        return f"there is no way back: {former.lacks}"
    return f"{former.record.build.describe()}, which served last, is loaded again"


def describe(view: View, width: int = 0) -> str:
    """For people, wrapped at that many columns; 0: not at all."""
    plan, page = view.plan, Page(width)
    if view.found:
        page.head("What is true")
    for name, words in _once(view).items():
        page.add(f"  {name:{NAMES}}{words}", NAMES + 2)
    page.head("What is wanted")
    page.add(f"  {plan.wanted}")
    page.head(_describe_whole(view))
    for number, step in enumerate(plan.steps, 1):
        _add_step(page, number, step, view)
    if view.way_back and not plan.blockers:
        page.add(f"  If that does not serve: {view.way_back}", 4)
    for warning in plan.warnings:
        page.head(f"Warning: {warning}")
    if plan.pending:
        page.head(f"Degraded until then: {plan.pending}")
    for blocker in plan.blockers:
        page.head(f"Blocked ({blocker.code.value}): {blocker.message}")
        if blocker.remedy:
            page.add(f"  {blocker.remedy}", 2)
    return page.text


def describe_seconds(seconds: float) -> str:
    """As a person would say it."""
    if seconds < 0.1:
        return "< 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Page:
    """Lines that are wrapped at a width, 0: not at all."""

    def __init__(self, width: int) -> None:
        """An empty page."""
        self._width = width
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"

    def head(self, line: str) -> None:
        """A line that stands apart from what is above."""
        if self._lines:
            self._lines.append("")
        self.add(line)

    def add(self, line: str, indent: int = 0) -> None:
        """A line; where it is wrapped the rest begins at that column."""
        if self._width <= indent + 20 or len(line) <= self._width:
            self._lines.append(line)
            return
        import textwrap

        self._lines += textwrap.wrap(
            line, self._width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
        )


def _once(view: View) -> dict[str, str]:
    """What is found; who uses the driver is told once, where it is in the way there."""
    found, users = dict(view.found), view.found.get("users")
    at_the_end = (view.plan.pending, *(blocker.message for blocker in view.plan.blockers))
    if users and any(users in end for end in at_the_end):
        found["users"] = "the driver is in use, see the end"
    return found


def _add_step(page: Page, number: int, step: PlannedStep, view: View) -> None:
    told = view.estimate
    what = step.what.replace(f"; {view.found.get('users')}", ", whoever uses it")
    seconds = told.steps.get(step.name.value)
    time = describe_seconds(seconds) if seconds is not None else "?" if told.steps else ""
    column = 6 + NAMES + (TIMES if told.steps else 0)
    took = f"{time:>{TIMES - 2}}  " if told.steps else ""
    page.add(f"{number:4}. {step.name.value:{NAMES}}{took}{what}", column)
    before = " " * column
    if step.unknown:
        page.add(f"{before}unknown until then: {step.unknown}", column + 2)
    if len(step.alternatives_left) > 1:
        others = ", then ".join(WAYS[Source(other)] for other in step.alternatives_left[1:])
        page.add(f"{before}if that fails: {others}", column + 2)
    for other in step.set_aside:
        page.add(f"{before}set aside: {other.alternative}, since {other.reason}", column + 2)


def _describe_whole(view: View) -> str:
    plan, told = view.plan, view.estimate
    if plan.blockers:
        return "What would be done, if nothing blocked it (see the end)"
    what = "What will be done, in order"
    if not told.steps:
        return f"{what} (how long it takes is not known: no start of this kind is on record here)"
    did = LIKE[Source(told.modules_from)]
    if told.seconds is None:
        return f"{what}: no start here {did} before; the rest takes about {describe_seconds(told.rest)}"
    of = f"the median of {told.starts} starts" if told.starts > 1 else "the one start"
    return f"{what}: about {describe_seconds(told.seconds)}, by {of} here that {did}"


def _describe_binding(gpu: Gpu) -> str:
    if gpu.driver:
        return f"bound to {gpu.driver}"
    return f"reserved for {gpu.reserved}" if gpu.reserved else "bound to no driver"
