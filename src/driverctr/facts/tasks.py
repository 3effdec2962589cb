"""A task that does not end: its state and where in the kernel it sleeps, from /proc/PID."""

from collections.abc import Iterable
from pathlib import Path

from driverctr.facts.modules import LoadedModule
from driverctr.facts.processes import UNREADABLE_STATES
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

UNINTERRUPTIBLE = "D"
MODULE_TOOLS = frozenset({"modprobe", "rmmod", "insmod", "kmod"})
FRAMES = 6
"""Innermost functions of a kernel stack that a message shows."""


@frozen
class Task:
    """One task; `stack` from the innermost function outwards, empty where /proc/PID/stack cannot be read."""

    pid: int
    command: str
    state: str
    wchan: str
    stack: tuple[str, ...]

    def __str__(self) -> str:
        """For a sentence."""
        where = " < ".join(self.stack[:FRAMES]) or (self.wchan if self.wchan.strip("0") else "unknown")
        return f"pid {self.pid} ({self.command}), state {self.state}, in the kernel: {where}"


def read(paths: Paths, pid: int) -> Task | None:
    """A task as it is now (proc(5): status, stack, wchan), or None where it is gone."""
    return _read(paths.proc / str(pid), pid)


def hanging_module_tools(paths: Paths) -> tuple[Task, ...]:
    """The module tools that sleep uninterruptibly now, as far as our PID namespace shows them."""
    found = []
    for folder in paths.proc.iterdir():
        if folder.name.isdigit() and (read_text(folder / "comm") or "") in MODULE_TOOLS:
            task = _read(folder, int(folder.name))
            if task is not None and task.state == UNINTERRUPTIBLE:
                found.append(task)
    return tuple(sorted(found, key=lambda task: task.pid))


def describe_stuck(unsettled: Iterable[LoadedModule], hanging: Iterable[Task]) -> str:
    """For a sentence: which modules neither came nor went, and who hangs with them, as far as it can be seen."""
    ways = {"coming": "load", "going": "unload"}
    what = ", ".join(f"the {ways[module.state]} of {module.name} has not ended" for module in unsettled)
    return "; ".join((f"{what} (initstate)", *map(str, hanging)))


def _read(folder: Path, pid: int) -> Task | None:
    status = read_text(folder / "status")
    if status is None:
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    frames = (line.rpartition("] ")[2].partition("+")[0] for line in (read_text(folder / "stack") or "").splitlines())
    state = fields.get("State", "?")[:1]
    words = "" if state in UNREADABLE_STATES else read_text(folder / "cmdline") or ""
    command = " ".join(words.split("\0")).strip() or fields.get("Name", "")
    return Task(pid, command, state, read_text(folder / "wchan") or "", tuple(frame for frame in frames if frame))
