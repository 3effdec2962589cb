"""What the kernel's and the tools' words mean, by the signs of the table in explain.py."""

import re
from collections.abc import Iterable

from driverctr.errors import Code
from driverctr.explain import EXPLANATIONS
from driverctr.records import frozen

NVRM = "NVRM: "
SHOWN = 3
"""Findings of one kind told in a message: a module of another kernel lacks symbols by the hundred."""


@frozen
class Recognised:
    """What words were found to mean."""

    code: Code
    says: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return EXPLANATIONS[self.code].remedy


def recognise(kernel: Iterable[str], tool: str = "") -> Recognised | None:
    """What the kernel's lines mean, or, where they tell nothing, a tool's words; None where neither is known.

    The lines are those about what the tool did (kernellog.Extract.about): others' failures look the same.
    """
    return _search(_paragraphs(kernel), of_tool=False) or _search(tool.splitlines(), of_tool=True)


def _search(lines: list[str], *, of_tool: bool) -> Recognised | None:
    """The first sign of the table that is among the lines; what several lines say of one kind is told together."""
    for code, row in EXPLANATIONS.items():
        for sign in (sign for sign in row.signs if of_tool or not sign.of_tool):
            matches = (match for line in lines for match in re.finditer(sign.pattern, line))
            told = list(dict.fromkeys(sign.says.format(**match.groupdict()) for match in matches))
            if told:
                more = f" (and {len(told) - SHOWN} more)" if len(told) > SHOWN else ""
                return Recognised(code, "; ".join(told[:SHOWN]) + more)
    return None


def _paragraphs(lines: Iterable[str]) -> list[str]:
    """NVRM breaks its sentences into lines of its own prefix: those that follow one another become one line."""
    found: list[str] = []
    former = False
    for line in lines:
        of_nvrm = line.startswith(NVRM)
        text = " ".join(line.removeprefix(NVRM).split())
        if of_nvrm and former:
            found[-1] += f" {text}"
        else:
            found.append(text)
        former = of_nvrm
    return found
