"""`driverctr who`: everything that holds the driver now, and what to do about each."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from driverctr import daemons
from driverctr.conceal import printed
from driverctr.errors import Code
from driverctr.facts import freeing, holders, modules, processes, tasks
from driverctr.facts.holders import Holder, InUse
from driverctr.facts.modules import LoadedModule
from driverctr.paths import Paths
from driverctr.records import frozen
from driverctr.steps import Tools

if TYPE_CHECKING:
    import argparse

SCHEMA = 1

OURS = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_peermem")
"""What we load, and unload, ourselves; what else holds the driver was loaded by others."""


@frozen
class Use:
    """One look: the modules, who holds them, and which of them keep the driver from being unloaded.

    `stuck` is what neither loads nor unloads to its end, in a sentence.
    """

    stack: tuple[LoadedModule, ...]
    used: tuple[InUse, ...]
    users: tuple[Holder, ...]
    own: tuple[processes.Identity, ...]
    stuck: str = ""

    @property
    def beside(self) -> tuple[LoadedModule, ...]:
        """Modules of others that go with the driver: nobody has a reference to them."""
        used = {use.module for use in self.used}
        return tuple(module for module in self.stack if module.name not in (*OURS, *used))

    def holds(self, module: LoadedModule) -> list[str]:
        """What a module holds of the others."""
        return [other.name for other in self.stack if module.name in other.holders]


def look(paths: Paths) -> Use:
    """Who uses the driver at this moment."""
    own = tuple(running.identity for running in daemons.find_all(paths))
    stack, users = holders.settled(paths, own, modules.read_stack(paths))
    used = holders.in_use(stack, users, own, processes.blindness(paths))
    unsettled = modules.unsettled(stack)
    stuck = tasks.describe_stuck(unsettled, tasks.hanging_module_tools(paths)) if unsettled else ""
    return Use(tuple(stack.values()), used, users, own, stuck)


def show(tools: Tools, arguments: "argparse.Namespace") -> int:
    """Print it; exit status 0 if nobody is in the way of an unload, that of in-use if somebody is."""
    found = look(tools.paths)
    sys.stdout.write(printed(as_dict(found) if arguments.json else describe(found)))
    return Code.IN_USE.exit_status if found.used else 0


def describe(found: Use) -> str:
    """For people: in the words of every "in use", one user a line, what ends it below."""
    lines: list[str] = []
    for head, users in holders.tell(found.used):
        lines += [*_separate(lines), f"{head}:"]
        for words, act in users:
            lines += [f"  {words}", *([f"      {act}"] if act else [])]
    lines = [f"{holders.IN_USE}{lines[0]}", *lines[1:]] if lines else [_say_nobody(found)]
    harmless = _describe_harmless(found)
    if harmless:
        lines += ["", "Not in the way of an unload:", *(f"  {line}" for line in harmless)]
    if found.stuck:
        lines += ["", f"Stuck: {found.stuck}"]
    if any(holder.container.pod_uid for use in found.used for holder in use.by):
        lines += ["", freeing.ON_KUBERNETES]
    return "\n".join(lines) + "\n"


def as_dict(found: Use) -> dict[str, Any]:
    """For programs; docs/who.md explains each field."""
    return {
        "schema": SCHEMA,
        "in_use": bool(found.used),
        "message": holders.describe(found.used) if found.used else "",
        "remedy": holders.remedy(found.used) if found.used else "",
        "modules": [_module(module, found.used) for module in found.stack],
        "holders": [_holder(holder, ours=holder.identity in found.own) for holder in found.users],
        "stuck": found.stuck,
    }


def _separate(lines: Sequence[str]) -> list[str]:
    return [""] if lines else []


def _say_nobody(found: Use) -> str:
    if not found.stack:
        return "nobody uses the driver: none of its modules is loaded"
    core = found.stack[0]
    return f"nobody uses the driver: {core.name} {core.version}".rstrip() + " is loaded, and can be unloaded"


def _describe_harmless(found: Use) -> list[str]:
    ours = [holder for holder in found.users if holder.identity in found.own]
    return [
        *(f"{holder}: our own daemon, which is stopped before an unload" for holder in ours),
        *(
            f"module {module.name}, which holds {', '.join(found.holds(module))}: unloaded with the driver, and not "
            "loaded again by us"
            for module in found.beside
        ),
    ]


def _module(module: LoadedModule, used: Sequence[InUse]) -> dict[str, Any]:
    use = next((use for use in used if use.module == module.name), None)
    return {
        "name": module.name,
        "version": module.version,
        "refcnt": module.refcnt,
        "held_by_modules": list(module.holders),
        "by_our_daemons": use.ours if use else module.handles,
        "in_use": use is not None,
        "pids": [holder.pid for holder in use.by] if use else [],
        "unseen": use.unseen if use else 0,
        "act_on_unseen": next((act for _, act in reversed(use.users()) if use.unseen), "") if use else "",
    }


def _holder(holder: Holder, *, ours: bool) -> dict[str, Any]:
    told = holder.as_dict()
    return {
        "pid": holder.pid,
        "command": holder.command,
        "started": holder.started,
        "container": told["container"],
        "references": told["handles"],
        "only_mapped": holder.closed,
        "ours": ours,
        "words": str(holder),
        "action": "" if ours else holder.action,
    }
