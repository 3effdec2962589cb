"""docs/architecture.md: its picture and its table, of the rooms that a test enforces."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass
from pathlib import Path

from harness.docs import REPOSITORY
from harness.errors import HarnessError
from harness.pages import blocks

PAGE = REPOSITORY / "docs/architecture.md"
RULE = REPOSITORY / "tests/unit/test_layers.py"
WIDTH = 100


@dataclass(frozen=True)
class Room:
    """A room: its name, what it is for, and the modules in it."""

    name: str
    holds: str
    modules: tuple[str, ...]


NAMES = {
    "errors": (
        "words",
        "the one error type, codes, values, logs, processes, files, signals: what everything is said with",
    ),
    "config": ("wishes", "environment and flags become one frozen Config, by the table of settings"),
    "facts": (
        "facts",
        "what is true of this node, read only; each reader takes the root, so that a test hands it a tree",
    ),
    "status": ("publishing", "what others may read of us"),
    "kmod": ("mechanisms", "each does one thing to the node, and can undo it"),
    "verify": ("truth", "whether the kernel confirms what is said"),
    "distros": ("packages", "which packages a kernel needs, and how the package tool is called"),
    "headers": ("sources", "kernel headers, and the driver's userspace"),
    "build": ("build", "modules from source"),
    "modules": ("modules", "the ways to have built modules: loaded, store, disk, remote, build; and the store itself"),
    "history": ("history", "the starts of this node: how long they took, and how they ended"),
    "node": ("survey", "the facts of a start, gathered"),
    "preflight": ("preflight", "the checks that init, plan and doctor share"),
    "plan": ("plan", "wish and facts become ordered steps with alternatives, by a pure function"),
    "steps": ("steps", "one class a step: describe, apply, undo"),
    "mend": ("keeping", "what is put back or prepared while the driver serves"),
    "lifecycle": ("lifecycle", "the one line of a start, of waiting and of a stop"),
    "statusview": ("status", "what `driverctr status` tells, and how it waits"),
    "cli": ("verbs", "the command line; the one place where errors end and become exit statuses"),
}
"""By a module of each room."""


def markdown() -> str:
    """The page, with both made anew."""
    return blocks.fill(PAGE.read_text(), {"picture": picture(rooms()), "rooms": table(rooms())})


def rooms() -> list[Room]:
    """The rooms, the one that knows least first. Raises HarnessError for one that has no name here."""
    text = RULE.read_text()
    (listed,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    ]
    return [_room(modules) for modules in listed if modules != ("__init__",)]


def _room(modules: tuple[str, ...]) -> Room:
    known = [NAMES[module] for module in modules if module in NAMES]
    if len(known) != 1:
        raise HarnessError(
            f"the room of {', '.join(modules)} has {len(known)} names in {Path(__file__).relative_to(REPOSITORY)}",
            "Give it one row in NAMES there",
        )
    return Room(*known[0], tuple(sorted(modules)))


def picture(found: list[Room]) -> str:
    """A box for each room, the one that knows most first; each knows those below it, and none above."""
    inner = WIDTH - 4
    lines = ["```text", f"┌{'─' * (inner + 2)}┐"]
    for room in reversed(found):
        first, *more = textwrap.wrap(" ".join(room.modules), inner - 13, break_on_hyphens=False)
        rows = [f"{room.name:13}{first}", *(f"{'':13}{row}" for row in more)]
        lines += [f"│ {row:{inner}} │" for row in rows]
        lines.append(f"├{'─' * (inner // 2)}▼{'─' * (inner - inner // 2 + 1)}┤")
    lines[-1] = f"└{'─' * (inner + 2)}┘"
    return "\n".join([*lines, "```", ""])


def table(found: list[Room]) -> str:
    """A row for each room, in the same order."""
    rows = [f"| {room.name} | {room.holds} |" for room in reversed(found)]
    return "\n".join(["| room | what it is for |", "|---|---|", *rows, ""])
