"""Signals: during a step they raise Stopped, around an act of the kernel they wait, at the end they wake a selector.

The first asks us to stop, the second to hurry, the third to leave at once, whatever is being done.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from driverctr.deferred import selectors
from driverctr.errors import Stopped

STOP_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

TO_HURRY = 2
TO_LEAVE = 3
"""How many signals it takes."""


class Signals:
    """The state between a signal's arrival and what we make of it."""

    def __init__(self) -> None:
        """Nothing has arrived; a pipe stands ready to wake the final wait."""
        self.arrived: int | None = None
        self.arrived_at: float | None = None
        self.count = 0
        self.what_is_left: Callable[[], str] = str
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
        self.count += 1
        if self.arrived is None:
            self.arrived, self.arrived_at = number, time.monotonic()
        if self.count >= TO_LEAVE:
            self._leave(number)
        if self.count == 1 and not self._held and not self._deaf:
            raise Stopped(number)

    def _leave(self, number: int) -> None:
        """End here and now: no undo, no log that may be in the middle of a line, no word that could fail."""
        try:
            words = f"signal {number}, the third: leaving at once. {self.what_is_left()}\n"
            os.write(2, words.encode())
        finally:
            os._exit(128 + number)

    @property
    def hurried(self) -> bool:
        """Whether a second signal asked for haste: then nothing is waited for."""
        return self.count >= TO_HURRY

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

    def sleep(self, seconds: float | None, *wakers: int) -> None:
        """Sleep, for ever with None; a stop signal ends it and raises Stopped, any other may end it early.

        It ends too when one of the descriptors in `wakers` can be read.
        """
        with selectors.DefaultSelector() as selector:
            for descriptor in (self.wake_reader, *wakers):
                selector.register(descriptor, selectors.EVENT_READ)
            with self.deferred():
                selector.select(seconds)
        self.check()
        self.drain()

    def pause(self, seconds: float) -> None:
        """Let all of that time pass, whatever child ends meanwhile; a stop signal ends it and raises Stopped."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.sleep(left)

    def wait_readable(self, descriptor: int | None, seconds: float) -> bool:
        """Wait until a descriptor is readable; False when `seconds` have passed or haste is asked.

        Without a descriptor it only lets time pass. For waits while undoing: no signal is raised here.
        """
        deadline = time.monotonic() + seconds
        return self.wait_while(descriptor, lambda: 0.0 if self.hurried else deadline - time.monotonic())

    def wait_while(self, descriptor: int | None, left: Callable[[], float]) -> bool:
        """Wait until a descriptor is readable; False when no seconds are left, which a signal may change."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.wake_reader, selectors.EVENT_READ)
            if descriptor is not None:
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                seconds = max(0.0, left())
                if descriptor in {key.fd for key, _ in selector.select(seconds)}:
                    return True
                if seconds == 0.0:
                    return False
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


class Budget:
    """The seconds a stop may take from its first signal on, all its acts together; before it nobody is in a hurry.

    nvidia-smi, a daemon and a kmod tool may all hang: who is waited for while more follows gets a share of what is
    left.
    """

    LEAST = 1.0
    """Seconds that anything gets even when nothing is left."""

    RESERVE = 3.0
    """Seconds an act leaves: to see that nothing ends it (run.KILL_LIMIT), and for all that is done in a moment."""

    SHARE_OF_THE_UNDO = 0.5
    """What an act leaves that the signal met under way: all that was done is still to be taken back."""

    def __init__(self, signals: Signals, seconds: float) -> None:
        """`seconds` must be below the grace period of whoever stops us."""
        self._signals = signals
        self.seconds = seconds
        self._undoing = False

    def begin(self) -> None:
        """From now on acts are those of the undo, which has all that is left."""
        self._undoing = True

    def for_an_act(self) -> float:
        """Seconds for what we do ourselves; one that is cut off in the kernel is taken for stuck."""
        reserve = self.RESERVE if self._undoing else max(self.RESERVE, self.seconds * self.SHARE_OF_THE_UNDO)
        return max(self.LEAST, self._left() - reserve)

    def for_others(self, most: float, share: float = 1.0) -> float:
        """Seconds to wait for somebody else, of a share of what is left `most` at most; none when haste is asked."""
        return 0.0 if self._signals.hurried else min(most, max(self.LEAST, self._left() * share))

    def wait(self, descriptor: int, seconds: float) -> bool:
        """Wait for the end of an act, until its descriptor is readable; False when `seconds` have passed.

        A signal that comes meanwhile leaves it what an act has then, and a second one changes nothing: what is cut off
        in the kernel is taken for stuck.
        """
        return self._signals.wait_while(descriptor, self._left_of(seconds))

    def wait_unless_hurried(self, descriptor: int, seconds: float) -> bool:
        """As `wait`, for an act that a second signal may end at once."""
        left = self._left_of(seconds)
        return self._signals.wait_while(descriptor, lambda: 0.0 if self._signals.hurried else left())

    def _left_of(self, seconds: float) -> Callable[[], float]:
        """What is left of the seconds an act has from now on."""
        until = time.monotonic() + seconds

        def left() -> float:
            nonlocal until
            until = min(until, time.monotonic() + self.for_an_act())
            return until - time.monotonic()

        return left

    def _left(self) -> float:
        arrived_at = self._signals.arrived_at
        return float("inf") if arrived_at is None else arrived_at + self.seconds - time.monotonic()
