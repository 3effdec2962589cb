"""Try again, a bounded number of times, with growing pauses."""

import random
from collections.abc import Callable
from typing import TypeVar

from driverctr.errors import DriverError
from driverctr.log import Log

Result = TypeVar("Result")


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
            seconds = first_pause * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
            log.warning(f"attempt {attempt} of {attempts} failed, next in {seconds:.0f} s: {error.message}")
            pause(seconds)
    raise AssertionError("attempts must be at least 1")
