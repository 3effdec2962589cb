"""A terminal of one's own (pty(7)), and what is to be seen on it."""

import fcntl
import os
import re
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")
"""ECMA-48 control sequences: those that rich writes are few."""


class Terminal:
    """The screen that the program at the other end of `tty` writes to."""

    def __init__(self, master: int, tty: TextIO) -> None:
        """Nothing is to be seen yet."""
        self.master, self.tty, self.raw = master, tty, ""

    def read(self, seconds: float = 0.1) -> list[str]:
        """The lines to be seen once nothing has come for a while."""
        while select.select([self.master], [], [], seconds)[0]:
            self.raw += os.read(self.master, 65536).decode()
        return lines_of(self.raw)


def lines_of(raw: str) -> list[str]:
    """What a terminal shows of what it was sent: lines, without the white space at their ends."""
    shown, row, column, at = [""], 0, 0, 0
    while at < len(raw):
        if found := SEQUENCE.match(raw, at):
            at = found.end()
            if found[2] == "A":
                row = max(0, row - int(found[1] or 1))
            elif found[2] == "K" and found[1] == "2":
                shown[row] = ""
            continue
        sign, at = raw[at], at + 1
        if sign == "\r":
            column = 0
        elif sign == "\n":
            row += 1
            shown += [""] * (row + 1 - len(shown))
        else:
            shown[row] = shown[row][:column].ljust(column) + sign + shown[row][column + 1 :]
            column += 1
    lines = [line.rstrip() for line in shown]
    while lines and not lines[-1]:
        lines.pop()
    return lines


@contextmanager
def opened(width: int = 100) -> Iterator[Terminal]:
    """A terminal of so many columns."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    try:
        with os.fdopen(slave, "w") as tty:
            yield Terminal(master, tty)
    finally:
        os.close(master)
