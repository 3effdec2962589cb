"""A pause between two attempts lasts, though the first one's children end."""

import os
import time

from driverctr.signals import Signals


def test_a_childs_end_does_not_cut_a_pause_short() -> None:
    signals = Signals()
    os.write(signals._wake_writer, b"\x11")
    started = time.monotonic()
    signals.pause(0.2)
    assert time.monotonic() - started >= 0.2
