"""How far a long work is: a line now and then, or a live bar on a terminal, with log lines passing above it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from driverctr.log import Format, Log
from driverctr.records import field, mutable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

    from driverctr.log import Fields

PAUSE = 1.0
"""Seconds between two lines."""

REDRAWN = 4
"""How often a bar is drawn in a second."""


@mutable
class Count:
    """So many of `total` (0: not known) are done; the rate is from the first one on, before which it is prepared."""

    what: str
    total: int = 0
    done: int = 0
    clock: Callable[[], float] = time.monotonic
    first: float = field(init=False, default=0.0)

    def add(self) -> None:
        """One more."""
        self.first = self.first or self.clock()
        self.done += 1

    @property
    def rate(self) -> float:
        """How many in a second; 0.0 while that cannot be told."""
        seconds = self.clock() - self.first
        return (self.done - 1) / seconds if self.done > 1 and seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to the end; None while that cannot be told."""
        return (self.total - self.done) / self.rate if self.total >= self.done and self.rate else None

    @property
    def fields(self) -> "Fields":
        """For a log line: what can be told."""
        found: Fields = {"done": self.done}
        if self.total:
            found["total"] = self.total
        if self.rate:
            found["rate"] = round(self.rate, 2)
        if self.left is not None:
            found["left"] = round(self.left, 1)
        return found

    def __str__(self) -> str:
        """Of how many, and how long yet."""
        share = f" of {self.total} ({100 * self.done // self.total} %)" if self.total >= max(1, self.done) else ""
        rate = f", {self.rate:.1f}/s" if self.rate else ""
        left = f", {self.left:.0f} s left" if self.left is not None else ""
        return f"{self.done}{share} {self.what}{rate}{left}"


class Screen:
    """A terminal as the stream of a log: what is written goes above the bar where there is one."""

    def __init__(self, terminal: TextIO) -> None:
        """No bar yet."""
        self.terminal = terminal
        self._above: Callable[[str], object] = terminal.write

    def write(self, text: str) -> None:
        """Write a line; raises what the terminal raises."""
        self._above(text)

    def flush(self) -> None:
        """For a log."""
        self.terminal.flush()

    @contextmanager
    def bar(self, name: str, count: Count) -> Iterator[None]:
        """Draw a count for as long as the block lasts, by a thread of its own; nothing of it is left behind."""
        from rich.progress import BarColumn, Progress, TextColumn

        console = self._console()
        columns = (TextColumn(name), BarColumn(), _column(count))
        drawn = Progress(
            *columns,
            console=console,
            transient=True,
            refresh_per_second=REDRAWN,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        drawn.add_task(name, total=None)
        with suppress(OSError):  # a terminal that is gone is not worth dying for, as in Log.write
            drawn.start()
        self._above = lambda text: console.out(text, end="", highlight=False)
        try:
            yield
        finally:
            self._above = self.terminal.write
            with suppress(OSError):
                drawn.stop()

    def can_draw(self) -> bool:
        """Whether the terminal can move its cursor (TERM)."""
        return not self._console().is_dumb_terminal

    def _console(self) -> "Console":
        from rich.console import Console

        return Console(file=self.terminal)


def _column(count: Count) -> "ProgressColumn":
    """A count in words; it moves the bar too, since it is asked at each drawing."""
    from rich.progress import ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        """The count."""

        def render(self, task: Task) -> Text:
            """For rich."""
            task.total, task.completed = count.total or None, count.done
            return Text(str(count))

    return Words(Column(no_wrap=True))


def screen(stream: TextIO) -> "TextIO | Screen":
    """A stream to log to: one that is a terminal can have a bar."""
    return Screen(stream) if stream.isatty() else stream


@contextmanager
def counted(
    log: Log, name: str, what: str, total: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], None]]:
    """Tell how far a work is, for as long as the block lasts; what is yielded is called when one more is done."""
    count = Count(what, total, clock=clock)
    if log.format is Format.TEXT and isinstance(log.stream, Screen) and log.stream.can_draw():
        with log.stream.bar(name, count):
            yield count.add
        return
    said = clock()

    def add() -> None:
        nonlocal said
        count.add()
        if (now := clock()) - said >= PAUSE:
            said = now
            log.info(f"{name}: {count}", **count.fields)

    yield add
