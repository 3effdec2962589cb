"""Which descriptors stand for one open file: those of a fork, of dup(2), or sent to another process (kcmp(2))."""

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial

from driverctr.records import frozen

NR_KCMP = {"x86_64": 312, "aarch64": 272}
"""asm/unistd.h of each architecture; the C library has no wrapper."""

KCMP_FILE = 0
"""linux/kcmp.h"""

SAME, LESS = 0, 1
"""What kcmp returns of two open files; it orders them, so that many can be sorted. 2 is greater, 3 unordered."""


def compare(pid: int, other_pid: int, descriptor: int, other_descriptor: int) -> int:
    """kcmp(2) of two descriptors, negative where it fails; it needs CAP_SYS_PTRACE, and CONFIG_KCMP in the kernel."""
    call = _kcmp()
    return call(pid, other_pid, KCMP_FILE, descriptor, other_descriptor) if call else -1


@cache
def _kcmp() -> Callable[..., int] | None:
    import ctypes

    number = NR_KCMP.get(os.uname().machine)
    call = ctypes.CDLL(None).syscall
    call.argtypes = [ctypes.c_long] * 6
    call.restype = ctypes.c_long
    return partial(call, number) if number is not None else None


@frozen
class Descriptor:
    """One descriptor of a process, ordered by the open file behind it."""

    pid: int
    number: int

    def __lt__(self, other: "Descriptor") -> bool:
        """As the kernel orders the two."""
        return compare(self.pid, other.pid, self.number, other.number) == LESS

    def is_same(self, other: "Descriptor") -> bool:
        """Whether both stand for one open file."""
        return compare(self.pid, other.pid, self.number, other.number) == SAME


class OpenFiles:
    """The open files met so far, by device; where the kernel does not tell, each descriptor is one of its own."""

    def __init__(self) -> None:
        """None yet."""
        self._known: defaultdict[int, list[Descriptor]] = defaultdict(list)

    def is_new(self, device: int, met: Descriptor) -> bool:
        """Whether this descriptor of a device stands for an open file not met before; then it has been met now."""
        known = self._known[device]
        place = bisect_left(known, met)
        if place < len(known) and met.is_same(known[place]):
            return False
        known.insert(place, met)
        return True
