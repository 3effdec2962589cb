"""Log lines for people (text) or machines (JSON), and timed steps; nothing secret is in either."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from driverctr.conceal import conceal, conceal_all
from driverctr.records import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypedDict, Unpack

    class Fields(TypedDict, total=False):
        """What a line in JSON may have beside its time, level and message (log_fields tells of each)."""

        code: str
        step: str
        event: str
        seconds: float
        done: int
        total: int
        rate: float
        left: float
        attempt: int
        next_try: float
        kernel: str

    class Stream(Protocol):
        """What lines go to."""

        def write(self, text: str, /) -> object:
            """Take a line; raises OSError or ValueError."""
            ...

        def flush(self) -> object:
            """Hand on what was taken."""
            ...


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


TOLD = (Level.WARNING, Level.ERROR)
"""Where a line of text has its code: a place that is passed over for another has one too, and is no failure."""


@frozen
class Log:
    """Writes lines to a stream; passed to whoever has something to say."""

    format: Format = Format.TEXT
    threshold: Level = Level.INFO
    stream: Stream = field(default_factory=lambda: sys.stderr)

    def debug(self, message: str, **fields: Unpack[Fields]) -> None:
        """Say what only someone who hunts a bug wants to read."""
        self.write(Level.DEBUG, message, fields)

    def info(self, message: str, **fields: Unpack[Fields]) -> None:
        """Say what happens."""
        self.write(Level.INFO, message, fields)

    def warning(self, message: str, **fields: Unpack[Fields]) -> None:
        """Say what is not as it should be, though we go on."""
        self.write(Level.WARNING, message, fields)

    def error(self, message: str, **fields: Unpack[Fields]) -> None:
        """Say what failed."""
        self.write(Level.ERROR, message, fields)

    def write(self, level: Level, message: str, fields: Fields) -> None:
        """Write one line; a closed stream is not worth dying for, the node's state is.

        In text the message has all but the code, which is told where it is worth looking for.
        """
        order = list(Level)
        if order.index(level) < order.index(self.threshold):
            return
        now = time.time()
        seconds, fraction = time.gmtime(now), f".{int(now % 1 * 1e6):06d}"
        message = conceal(message)
        if self.format is Format.JSON:
            stamp = time.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}+00:00", seconds)
            line = json.dumps({"time": stamp, "level": level, "message": message, **conceal_all(fields)})
        else:
            tail = f" code={fields['code']}" if "code" in fields and level in TOLD else ""
            line = f"{time.strftime('%H:%M:%S', seconds)}{fraction[:4]} {level.upper():7} {_harmless(message)}{tail}"
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            return

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """Frame a step with its start, its end and its time in seconds."""
        self.info(f"{name}: {what}", step=name, event="start")
        started = time.monotonic()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            seconds = time.monotonic() - started
            level = Level.INFO if outcome == "done" else Level.WARNING
            told: Fields = {"step": name, "event": outcome, "seconds": round(seconds, 3)}
            self.write(level, f"{name}: {outcome} in {seconds:.2f} s", told)


def _harmless(message: str) -> str:
    """Words of other programs steer no terminal, and no sign of a name keeps a line from being written."""
    if message.isprintable():
        return message
    return "".join("\N{REPLACEMENT CHARACTER}" if _steers(sign) else sign for sign in message)


def _steers(sign: str) -> bool:
    """A control character (Unicode's categories Cc and Cs) that is none of the white space of a text."""
    return sign not in "\n\t" and (sign < " " or "\x7f" <= sign <= "\x9f" or "\ud800" <= sign <= "\udfff")
