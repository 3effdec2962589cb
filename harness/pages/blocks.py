"""Blocks of a page that are made anew, between <!-- NAME --> and <!-- /NAME -->; the rest is written by hand."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping

BLOCK = re.compile(r"(<!-- (?P<name>[a-z-]+) -->\n)(?P<text>.*?)(<!-- /(?P=name) -->)", re.DOTALL)
WIDTH = 130


def names(page: str) -> list[str]:
    """The names of a page's blocks, in order."""
    return [found["name"] for found in BLOCK.finditer(page)]


def fill(page: str, texts: Mapping[str, str]) -> str:
    """The page with these texts, which end with a line's end, in the blocks of those names; others stay."""
    return BLOCK.sub(lambda found: found[1] + texts.get(found["name"], found["text"]) + found[4], page)


def unfilled(page: str, known: Iterable[str] = ()) -> list[str]:
    """The names of blocks with nothing in them, and of `known` those that the page has no block for."""
    empty = [found["name"] for found in BLOCK.finditer(page) if not found["text"].strip()]
    return [*empty, *(name for name in known if name not in names(page))]


def quoted(lines: Iterable[str]) -> str:
    """What a program printed, as a page shows it: lines that are too long are wrapped, nothing else is changed."""
    wrapped = (
        row
        for line in lines
        for row in textwrap.wrap(line, WIDTH, subsequent_indent=_indent(line), break_on_hyphens=False) or [""]
    )
    return "\n".join(["```text", *wrapped, "```", ""])


def _indent(line: str) -> str:
    """What goes before the rest of a line: where its second column begins, if it has one."""
    column = re.match(r"(?=.{0,9}\S).{1,40}?\S {2,}(?=\S)|\s*", line)
    return " " * (len(column[0]) if column and column[0] else 4)
