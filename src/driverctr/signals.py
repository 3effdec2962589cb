"""Signals: during a step they raise Stopped, around an act of the kernel they wait, at the end they wake a selector."""

import contextlib
import os
import selectors
import signal
from collections.abc import Iterator
from types import FrameType

from driverctr.errors import Stopped

STOP_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class Signals:
    """The state between a signal's arrival and what we make of it."""

    def __init__(self) -> None:
        """Nothing has arrived; a pipe stands ready to wake the final wait."""
        self.arrived: int | None = None
        self._held = 0
        self._deaf = False
        self.wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def install(self) -> None:
        """Take over the stop signals, and SIGCHLD so that an orphan's end wakes the final wait."""
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        first = self.arrived is None
        self.arrived = self.arrived or number
        if first and not self._held and not self._deaf:
            raise Stopped(number)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let an act that must not be torn apart (a modprobe, a mount) end before Stopped is raised."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self.check()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While we sleep in a selector a signal is only noted: the wake pipe ends the sleep."""
        self.check()
        former, self._deaf = self._deaf, True
        try:
            yield
        finally:
            self._deaf = former

    def sleep(self, seconds: float | None) -> None:
        """Sleep, for ever with None; a stop signal ends it and raises Stopped, any other may end it early."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.wake_reader, selectors.EVENT_READ)
            with self.deferred():
                selector.select(seconds)
        self.check()
        self.drain()

    def deafen(self) -> None:
        """From now on signals are only noted: what is being undone must be undone to its end."""
        self._deaf = True

    def check(self) -> None:
        """Raise Stopped if a signal came while it could not be raised."""
        if self.arrived is not None and not self._held and not self._deaf:
            raise Stopped(self.arrived)

    def drain(self) -> None:
        """Empty the wake pipe."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake_reader, 4096):
                pass
