"""How long somebody else's server is borne with."""

import time

from driverctr.records import frozen


@frozen
class Limits:
    """Seconds for a connection, for silence on it, for all documents of a search, and for all files of an entry.

    `attempts` is how often one file is tried, with pauses from `first_pause` seconds on.
    """

    connect: float = 5.0
    silence: float = 15.0
    documents: float = 45.0
    files: float = 300.0
    attempts: int = 4
    first_pause: float = 1.0


@frozen
class Deadline:
    """A moment on the monotonic clock, and for messages how many seconds away it was."""

    moment: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """The moment so many seconds from now."""
        return cls(time.monotonic() + seconds, seconds)

    @property
    def left(self) -> float:
        """Seconds until then."""
        return max(0.0, self.moment - time.monotonic())
