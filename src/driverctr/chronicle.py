"""What a start adds to the history: itself, and one before it that nobody lived to tell of."""

import time
from typing import Any

from driverctr import history, status
from driverctr.errors import DriverError
from driverctr.history import Outcome, Start
from driverctr.records import field, mutable
from driverctr.status import Phase, Status
from driverctr.steps import Tools

UNFINISHED = (Phase.STARTING, Phase.WAITING_FOR_GPU, Phase.RETRYING)
"""Phases in which a start has not come to an end."""


@mutable
class Chronicle:
    """Tells of one start, once; a history that cannot be written is said and ends nothing."""

    tools: Tools
    is_told: bool = False
    began: float = field(default_factory=time.monotonic)
    """By the clock that nobody sets: that of the wall often is, in the minutes after a boot."""

    def __post_init__(self) -> None:
        """What a start left that was killed is told now, before its document is written over.

        That may lie there still after a start that did not live to write its own: it is told once.
        """
        former = status.read(self.tools.paths)
        if former is not None and former.get("phase") in UNFINISHED and not self._is_on_record(former):
            self._record(Outcome.CRASHED, former, _seconds(former, self._told_last()))

    def _is_on_record(self, former: dict[str, Any]) -> bool:
        place, started = history.folder(self.tools.paths, self.tools.config), former.get("started")
        if place is None or not isinstance(started, (int, float)):
            return False
        return any(start.started == round(started, 3) for start in history.read(place))

    def begin_anew(self) -> None:
        """A wait for a GPU, be it of months, is no part of what a start takes."""
        self.began = time.monotonic()

    def _told_last(self) -> float:
        try:
            return self.tools.paths.status_file.stat().st_mtime
        except OSError:
            return 0.0

    def note(self, told: Status, outcome: Outcome, failure: DriverError | None = None) -> None:
        """Tell how it came out, if it was not told before: a stop after ready is none of the start."""
        if self.is_told:
            return
        self.is_told = True
        document = {name: getattr(told, name) for name in told.__dataclass_fields__}
        self._record(outcome, document, time.monotonic() - self.began, failure)

    def _record(
        self, outcome: Outcome, document: dict[str, Any], seconds: float, failure: DriverError | None = None
    ) -> None:
        place = history.folder(self.tools.paths, self.tools.config)
        if place is None:
            return
        try:
            history.record(place, _start(outcome, document, seconds, failure))
        except (OSError, AttributeError, TypeError, ValueError, KeyError) as error:
            self.tools.runner.log.warning(f"the history {place / history.FILE} is not written: {error}")


def _seconds(former: dict[str, Any], told_last: float) -> float:
    """How long a start lived that was killed, until it told something last; 0.0 where that is no time."""
    started = former.get("started")
    return max(0.0, told_last - started) if isinstance(started, (int, float)) else 0.0


def _start(outcome: Outcome, document: dict[str, Any], seconds: float, failure: DriverError | None) -> Start:
    steps: dict[str, float] = {}
    for step in document["steps"]:
        name, took = (step["name"], step["seconds"]) if isinstance(step, dict) else (step.name, step.seconds)
        steps[name] = round(steps.get(name, 0.0) + float(took), 3)
    return Start(
        started=round(float(document["started"]), 3),
        seconds=round(seconds, 3),
        outcome=outcome,
        code=failure.code.value if failure else "",
        step="" if outcome is Outcome.READY else str(document["step"]),
        attempts=int(document.get("attempt", 1)),
        steps=steps,
        **{name: str(document[name]) for name in ("driver_version", "module_type", "kernel_release", "modules_from")},
    )
