"""Try again, a bounded number of times, with growing pauses."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from driverctr.errors import DriverError
from driverctr.log import Log

Result = TypeVar("Result")

LONGEST = 300.0
"""Seconds."""


def pause_before(attempt: int, first: float, most: float) -> float:
    """Seconds before the second attempt (2), the third...: doubled from `first` to `most`, up to a half less by chance.

    So that many who failed by one cause do not come again in one moment.
    """
    return min(most, first * 2.0 ** min(attempt - 2, 64)) * random.uniform(0.5, 1.0)


def retry(
    act: Callable[[], Result],
    *,
    attempts: int,
    first_pause: float,
    pause: Callable[[float], object],
    log: Log,
) -> Result:
    """Call `act` up to `attempts` times; pauses double from `first_pause` seconds, with jitter.

    `pause` waits (an Event's wait, so that a stop is heard). Raises the last DriverError.
    """
    for attempt in range(1, attempts + 1):
        try:
            return act()
        except DriverError as error:
            if attempt == attempts:
                raise
            seconds = pause_before(attempt + 1, first_pause, LONGEST)
            log.warning(
                f"attempt {attempt} of {attempts} failed, next in {seconds:.0f} s: {error.message}",
                code=error.code.value,
                attempt=attempt,
                next_try=round(time.time() + seconds, 3),
            )
            pause(seconds)
    raise AssertionError("attempts must be at least 1")
