"""What starts took and how they ended: a bounded file beside the store, one line of JSON a start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from driverctr.config import Config
from driverctr.errors import DriverError
from driverctr.files import read_text, write_atomic
from driverctr.modules.store import locate
from driverctr.paths import Paths
from driverctr.records import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "history.jsonl"
MOST_LINES = 200
"""Starts that are kept, the last ones: a node that fails every few minutes tells of a day, any other of a year."""

LATEST = 1e11
"""Seconds: no moment after that, nor a time that is longer, is one (the clock's year has four digits)."""

WHOLE = "total"
"""Beside the names of steps: the whole start."""


class Outcome(StrEnum):
    """How a start ended, or that it became ready: what comes after that is no matter of the start."""

    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"
    CRASHED = "crashed"


@frozen
class Start:
    """One start: when it began (seconds since the epoch), the seconds until it was ready or ended.

    `code` and `step` tell what failed and where, `steps` the seconds of each step, `attempts` how often it was tried.
    """

    started: float
    seconds: float
    outcome: Outcome
    code: str = ""
    step: str = ""
    attempts: int = 1
    driver_version: str = ""
    module_type: str = ""
    kernel_release: str = ""
    modules_from: str = ""
    steps: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in FIELDS}


FIELDS: Mapping[str, tuple[type, ...]] = {
    "started": (int, float),
    "seconds": (int, float),
    "outcome": (str,),
    "code": (str,),
    "step": (str,),
    "attempts": (int,),
    "driver_version": (str,),
    "module_type": (str,),
    "kernel_release": (str,),
    "modules_from": (str,),
    "steps": (dict,),
}
"""What a line has, and of what kind: a file on the host may have been written by anybody."""


def folder(paths: Paths, config: Config) -> Path | None:
    """Where the file lies: in the store's folder, which outlives containers; None where there is no place for one."""
    try:
        return locate(paths, config)
    except DriverError:
        return None


def read(place: Path) -> tuple[Start, ...]:
    """The starts of that node, oldest first; a line that is damaged is passed over."""
    lines = (read_text(place / FILE) or "").splitlines()[-MOST_LINES:]
    return tuple(filter(None, map(_parse, lines)))


def record(place: Path, start: Start) -> None:
    """Add a start; the oldest ones go. Raises OSError."""
    kept = [*read(place), start][-MOST_LINES:]
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(place / FILE, "".join(json.dumps(one.as_dict()) + "\n" for one in kept))


def _parse(line: str) -> Start | None:
    try:
        document = json.loads(line)
        if not all(type(document[name]) in kinds for name, kinds in FIELDS.items()):
            return None
        steps = {str(name): float(seconds) for name, seconds in document["steps"].items()}
        if not all(0 <= number <= LATEST for number in (document["started"], document["seconds"], *steps.values())):
            return None
        known = {name: document[name] for name in FIELDS}
        return Start(**{**known, "outcome": Outcome(document["outcome"]), "steps": steps})
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def medians(starts: Iterable[Start], modules_from: str = "") -> dict[str, float]:
    """The median of the seconds of each step, and of the WHOLE, over starts that became ready at the first attempt.

    With `modules_from` only of those that had their modules from there: a build takes a hundred times a hit.
    """
    return {name: percentile(values, 50) for name, values in samples(starts, modules_from).items()}


def samples(starts: Iterable[Start], modules_from: str = "") -> dict[str, list[float]]:
    """The seconds by step, and of the WHOLE, of such starts."""
    found: dict[str, list[float]] = {}
    for start in starts:
        if start.outcome is not Outcome.READY or start.attempts > 1 or modules_from not in ("", start.modules_from):
            continue
        for name, seconds in {**start.steps, WHOLE: start.seconds}.items():
            found.setdefault(name, []).append(seconds)
    return found


def percentile(values: Sequence[float], share: int) -> float:
    """The value that `share` of a hundred do not exceed (nearest rank); of at least one value."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * share // 100) - 1)]
