"""Colours for people: on a terminal alone, and not where NO_COLOR asks for none (no-color.org)."""

from __future__ import annotations

import os
from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"
"""ECMA-48, Select Graphic Rendition."""

UNTOLD = 80
"""Columns of a terminal that does not tell how many it has, as Docker's at its beginning."""


class Paint:
    """Colours words, or leaves them."""

    def __init__(self, *, on: bool) -> None:
        """`on`: whether it does anything."""
        self.on = on

    def __call__(self, text: str, colour: str) -> str:
        """The text in a colour; an empty colour is none."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.on and colour and text else text


def paint_for(stream: TextIO, environment: Mapping[str, str]) -> Paint:
    """What suits a stream: a terminal that knows colours, and nobody who wants none."""
    wanted = not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"
    return Paint(on=wanted and stream.isatty())


def width_of(stream: TextIO) -> int | None:
    """Columns of a terminal, UNTOLD where it does not tell, None where it is none."""
    return (os.get_terminal_size(stream.fileno()).columns or UNTOLD) if stream.isatty() else None
