"""The wait: asleep until a signal, a daemon's end or word, a hint that something changed, or the next look is due."""

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from driverctr import pidfd
from driverctr.daemons import Daemon, Running
from driverctr.errors import DriverError
from driverctr.hints import Hint
from driverctr.run import Runner, reap
from driverctr.signals import Signals
from driverctr.syslog import Syslog

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
CALM = 300.0
"""Seconds: a daemon that died is started again after FIRST_PAUSE, then twice as long each time, until it has lived
CALM seconds."""

SETTLE = 0.25
"""Seconds a hint is left to itself after its first word: whatever follows, a storm too, is one look."""


@dataclass
class Watch:
    """One daemon under watch: living (with a descriptor) or due to be started at a monotonic time."""

    daemon: Daemon
    descriptor: int = -1
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float | None = None


@dataclass
class Hearing:
    """A hint: heard in the selector, or (with `due`) left to itself until a monotonic time."""

    hint: Hint
    due: float | None = None


@dataclass
class Supervisor:
    """Keeps daemons alive until a signal comes, and looks after the driver.

    `start(daemon)` starts one again.
    `on_change(ready)` hears when all daemons live, or no longer all. `look` is called when a hint or the clock asks for
    it, and tells in how many seconds at most it wants to be called again. `spared` are children whose end somebody else
    asks for.
    """

    start: Callable[[Daemon], Running]
    runner: Runner
    signals: Signals
    syslog: Syslog
    on_change: Callable[[bool], None]
    look: Callable[[], float]
    spared: Callable[[], set[int]] = set
    watches: list[Watch] = field(default_factory=list)
    hearings: list[Hearing] = field(default_factory=list)
    restarts: int = 0
    look_due: float = 0.0

    def wait(self, running: tuple[Running, ...], hints: Sequence[Hint] = ()) -> None:
        """Watch until Stopped is raised by a signal; the first look is taken at once, since hints are heard now."""
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            selector.register(self.signals.wake_reader, selectors.EVENT_READ)
            if self.syslog.is_open:
                selector.register(self.syslog, selectors.EVENT_READ)
            stack.callback(self._forget)
            for found in running:
                watch = Watch(found.daemon)
                self.watches.append(watch)
                self._attend(selector, watch, found)
            for hint in hints:
                self.hearings.append(Hearing(hint))
                selector.register(hint, selectors.EVENT_READ)
            self._look()
            while True:
                with self.signals.deferred():
                    ready = selector.select(self._next_due())
                self.signals.check()
                self.signals.drain()
                reap(self.spared())
                self._act(selector, {key.fd for key, _ in ready})

    def _act(self, selector: selectors.BaseSelector, ready: set[int]) -> None:
        if self.syslog.is_open and self.syslog.fileno() in ready:
            for line in self.syslog.read():
                self.runner.log.info(f"syslog: {line}")
        for watch in self.watches:
            if watch.descriptor in ready:
                self._lost(selector, watch)
            elif watch.due is not None and time.monotonic() >= watch.due:
                self._restart(selector, watch)
        concerned = [self._hear(selector, hearing, ready) for hearing in self.hearings]
        if any(concerned) or time.monotonic() >= self.look_due:
            self._look()

    def _hear(self, selector: selectors.BaseSelector, hearing: Hearing, ready: set[int]) -> bool:
        """The first word of a hint only begins its time to settle; whether something concerns us is read after it."""
        if hearing.due is None:
            if hearing.hint.fileno() in ready:
                selector.unregister(hearing.hint)
                hearing.due = time.monotonic() + SETTLE
            return False
        if time.monotonic() < hearing.due:
            return False
        hearing.due = None
        concerned = hearing.hint.read()
        selector.register(hearing.hint, selectors.EVENT_READ)
        return concerned

    def _look(self) -> None:
        self.look_due = time.monotonic() + self.look()

    def _attend(self, selector: selectors.BaseSelector, watch: Watch, running: Running) -> None:
        """Open a descriptor of it: that becomes readable when the process ends, whoever its parent is."""
        try:
            watch.descriptor = pidfd.opened(running.pid)
        except ProcessLookupError:
            self.on_change(False)
            self._schedule(watch)
            return
        watch.started, watch.due = time.monotonic(), None
        selector.register(watch.descriptor, selectors.EVENT_READ)

    def _lost(self, selector: selectors.BaseSelector, watch: Watch) -> None:
        selector.unregister(watch.descriptor)
        os.close(watch.descriptor)
        watch.descriptor = -1
        if time.monotonic() - watch.started >= CALM:
            watch.pause = FIRST_PAUSE
        self.runner.log.warning(f"{watch.daemon.name} has ended; it is started again in {watch.pause:.0f} s")
        self.on_change(False)
        self._schedule(watch)

    def _schedule(self, watch: Watch) -> None:
        watch.due = time.monotonic() + watch.pause
        watch.pause = min(LONGEST_PAUSE, watch.pause * 2)

    def _restart(self, selector: selectors.BaseSelector, watch: Watch) -> None:
        try:
            running = self.start(watch.daemon)
        except DriverError as error:
            self.runner.log.error(f"{error}; next try in {watch.pause:.0f} s", code=error.code.value)
            self._schedule(watch)
            return
        self.restarts += 1
        self._attend(selector, watch, running)
        self.runner.log.info(f"{watch.daemon.name} runs again (pid {running.pid})")
        if all(other.descriptor >= 0 for other in self.watches):
            self.on_change(True)

    def _next_due(self) -> float:
        dues = [*(watch.due for watch in self.watches), *(hearing.due for hearing in self.hearings)]
        return max(0.0, min([self.look_due, *(due for due in dues if due is not None)]) - time.monotonic())

    def _forget(self) -> None:
        for watch in self.watches:
            if watch.descriptor >= 0:
                os.close(watch.descriptor)
        self.watches.clear()
        self.hearings.clear()
