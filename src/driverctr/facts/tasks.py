"""A task that does not end: its state and where in the kernel it sleeps, from /proc/PID."""

from collections.abc import Iterable
from pathlib import Path

from driverctr.conceal import conceal_command
from driverctr.deferred import pattern
from driverctr.facts.modules import LoadedModule
from driverctr.facts.processes import UNREADABLE_STATES
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

UNINTERRUPTIBLE = "D"
MODULE_TOOLS = frozenset({"modprobe", "rmmod", "insmod", "kmod"})
OF_DRIVER = pattern(r"\[nvidia(?:_\w+)?\]$")
"""How a line of /proc/PID/stack ends that is of a module of the driver (Linux, sprint_symbol); all others of the
kernel's, and of other modules: `[<0>] finit_module+0x1/0x2`, `[<0>] mlx5_load+0x1/0x2 [mlx5_core]`."""
FRAMES = 6
"""Innermost functions of a kernel stack that a message shows."""


@frozen
class Task:
    """One task; `stack` from the innermost function outwards, empty where /proc/PID/stack cannot be read.

    `in_driver`: a function on it is one of the driver's modules.
    """

    pid: int
    command: str
    state: str
    wchan: str
    stack: tuple[str, ...]
    in_driver: bool = False

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
    """For a sentence: which modules neither came nor went, and who hangs with them, as far as it can be seen.

    A module tool that is not seen to sleep in the driver may be about another module, and is told apart.
    """
    ways = {"coming": "load", "going": "unload"}
    what = ", ".join(f"the {ways[module.state]} of {module.name} has not ended" for module in unsettled)
    who = sorted(hanging, key=lambda task: not task.in_driver)
    told = (str(task) if task.in_driver else f"also asleep: {task}" for task in who)
    return "; ".join((f"{what} (initstate)", *told))


def _read(folder: Path, pid: int) -> Task | None:
    status = read_text(folder / "status")
    if status is None:
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    lines = (read_text(folder / "stack") or "").splitlines()
    frames = (line.rpartition("] ")[2].partition("+")[0] for line in lines)
    state = fields.get("State", "?")[:1]
    words = "" if state in UNREADABLE_STATES else read_text(folder / "cmdline") or ""
    command = conceal_command(words.split("\0")).strip() or fields.get("Name", "")
    wchan = read_text(folder / "wchan") or ""
    stack = tuple(frame for frame in frames if frame)
    return Task(pid, command, state, wchan, stack, any(map(OF_DRIVER.search, lines)))
