"""docs/failures.md, of the tables of codes and of what each is known by."""

from __future__ import annotations

import re
from collections.abc import Iterator

from driverctr.errors import Code
from driverctr.explain import EXPLANATIONS

HEAD = """\
# Failures: exit statuses and codes

Generated from `src/driverctr/explain.py` by `./dev docs`. `driverctr explain CODE` prints one of them.

A failure has a code that stays the same from release to release, and an exit status of its own. The message names what
it met: the module, file, process or address. Where trying again may help, a start does so by itself, as `RETRY` says
([life.md](life.md#when-an-attempt-fails)).

| status | code | meaning | remedy | again |
|---|---|---|---|---|
"""
OTHER = """\
| 128 + n | | Signal n before the driver was ready; all is undone. A third signal: nothing more is. | | |
"""
WORDS = """
## Words of the kernel and of tools

What they say of a load, an unload or a GPU is read from the kernel log and from the tool's own output. It decides on
the code, and the message has it in these words, with the tool's and the kernel's own beside them.

| told as | code |
|---|---|
"""


def markdown() -> str:
    """The page."""
    return "".join([HEAD, *_codes(), OTHER, WORDS, *_words()])


def _codes() -> Iterator[str]:
    for code in Code:
        row = EXPLANATIONS[code]
        again = "may help" if row.retryable else "no"
        yield f"| {code.exit_status} | `{code.value}` | {row.meaning} | {row.remedy} | {again} |\n"


def _words() -> Iterator[str]:
    for code, row in EXPLANATIONS.items():
        for says in dict.fromkeys(sign.says for sign in row.signs):
            told = re.sub(r"`?\{(\w+)\}`?", lambda found: f"*{found[1].upper()}*", says)
            yield f"| {told} | `{code.value}` |\n"
