"""Log lines for people (text) or machines (JSON), and timed steps."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from driverctr.records import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def utc(moment: float) -> str:
    """A moment, in seconds since the epoch, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


class Format(StrEnum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """How much a line matters, lowest first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@frozen
class Log:
    """Writes lines to a stream; passed to whoever has something to say."""

    format: Format = Format.TEXT
    threshold: Level = Level.INFO
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def debug(self, message: str, **fields: object) -> None:
        """Say what only someone who hunts a bug wants to read."""
        self.write(Level.DEBUG, message, fields)

    def info(self, message: str, **fields: object) -> None:
        """Say what happens."""
        self.write(Level.INFO, message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Say what is not as it should be, though we go on."""
        self.write(Level.WARNING, message, fields)

    def error(self, message: str, **fields: object) -> None:
        """Say what failed."""
        self.write(Level.ERROR, message, fields)

    def write(self, level: Level, message: str, fields: dict[str, object]) -> None:
        """Write one line; a closed stream is not worth dying for, the node's state is."""
        order = list(Level)
        if order.index(level) < order.index(self.threshold):
            return
        now = time.time()
        seconds, fraction = time.gmtime(now), f".{int(now % 1 * 1e6):06d}"
        if self.format is Format.JSON:
            stamp = time.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}+00:00", seconds)
            line = json.dumps({"time": stamp, "level": level, "message": message, **fields}, default=str)
        else:
            tail = "".join(f" {name}={value}" for name, value in fields.items())
            line = f"{time.strftime('%H:%M:%S', seconds)}{fraction[:4]} {level.upper():7} {message}{tail}"
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            return

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """Frame a step with its start, its end and its time in seconds."""
        self.info(f"{name}: {what}", step=name, event="start") if self.format is Format.JSON else self.info(
            f"{name}: {what}"
        )
        started = time.monotonic()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            seconds = time.monotonic() - started
            level = Level.INFO if outcome == "done" else Level.WARNING
            extra = {"step": name, "event": outcome, "seconds": round(seconds, 3)}
            self.write(level, f"{name}: {outcome} in {seconds:.2f} s", extra if self.format is Format.JSON else {})
