"""Who uses the driver: processes with NVIDIA's devices open or mapped, and modules that hold ours."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, field, replace
from functools import partial
from typing import Any

from driverctr.facts import containers, modules, processes
from driverctr.facts.containers import Container
from driverctr.facts.handles import Scanner, read_majors
from driverctr.facts.modules import LoadedModule
from driverctr.facts.processes import Identity
from driverctr.log import utc
from driverctr.paths import Paths
from driverctr.records import frozen

SHORT_COMMAND = 60
"""Characters of a command line in a sentence."""

LISTED = 5
"""Holders named in a sentence for each module: the termination message has room for 4 KB."""

HandlesOf = Callable[[int], Counter[str]]
"""References by module that one process holds in one way."""

LOOKS = 3
"""How often we look while a reference has nobody to it: a process that ended between two readings leaves one."""


@frozen
class Holder:
    """A process with open handles: pid, command, start (seconds since the epoch), references taken by module.

    `ticks` is its start by the kernel's clock: with the pid its identity. `closed`: it keeps mappings of files it
    has closed, and nothing open. `shared` is what of `handles` is through open files that another holder was counted
    for, `maps` the modules it holds by mappings, maybe more often than `handles` says.
    """

    pid: int
    command: str
    started: float
    handles: tuple[tuple[str, int], ...]
    ticks: int = 0
    container: Container = field(default_factory=Container)
    closed: bool = False
    shared: tuple[tuple[str, int], ...] = ()
    maps: tuple[str, ...] = ()

    def counted(self, module: str) -> int:
        """References to a module that nobody else was counted for."""
        return max(0, dict(self.handles).get(module, 0) - dict(self.shared).get(module, 0))

    @property
    def identity(self) -> Identity:
        """What tells it from a later process with the same pid."""
        return self.pid, self.ticks

    @property
    def brief(self) -> str:
        """Pid and a short command."""
        words = " ".join("".join(c if c.isprintable() else " " for c in self.command).split())
        return f"pid {self.pid} ({words if len(words) <= SHORT_COMMAND else words[: SHORT_COMMAND - 1] + '…'})"

    def __str__(self) -> str:
        """For a sentence: pid, command, and in brackets container or pod and start."""
        since = f"since {utc(self.started)}" if self.started else ""
        mapping = "by a mapping alone" if self.closed else ""
        about = ", ".join(filter(None, (str(self.container), mapping, since)))
        return f"{self.brief} [{about}]" if about else self.brief

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "handles": dict(self.handles), "shared": dict(self.shared)}


@frozen
class InUse:
    """A module that cannot be unloaded now: its refcnt, the modules that hold it, references of our own daemons,
    the processes of others, references that no holder seen explains. `blind` says why somebody may not be visible,
    `mapped` that those seen keep mappings, which may be behind some of these references."""

    module: str
    refcnt: int
    modules: tuple[str, ...]
    ours: int
    by: tuple[Holder, ...]
    unseen: int
    blind: str = ""
    mapped: bool = False

    def __str__(self) -> str:
        """For a sentence; what cannot be seen is said."""
        return self.sentence(())

    def sentence(self, known: Collection[Identity]) -> str:
        """The same, where holders described before are named by pid and command only."""
        users = [holder.brief if holder.identity in known else str(holder) for holder in self.by[:LISTED]]
        if len(self.by) > LISTED:
            users.append(f"{len(self.by) - LISTED} more")
        if self.unseen:
            cure = f" ({self.blind})" if self.blind else ""
            who = "mappings of these or by holders" if self.mapped else "holders"
            users.append(f"{self.unseen} reference(s) by {who} not visible from here{cure}")
        return f"{self.module} has refcnt {self.refcnt}{self._innocent()}: {', '.join(users)}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        pids = [holder.pid for holder in self.by]
        said = {"pids": pids, "unseen": self.unseen, "sentence": str(self)}
        return {"module": self.module, "refcnt": self.refcnt, **said}

    def _innocent(self) -> str:
        """What part of the refcnt is in nobody's way."""
        by_modules = f"{len(self.modules)} by {', '.join(self.modules)}" if self.modules else ""
        by_daemons = f"{self.ours} by our own daemons" if self.ours else ""
        parts = ", ".join(filter(None, (by_modules, by_daemons)))
        return f" ({parts})" if parts else ""


def describe(used: Sequence[InUse]) -> str:
    """One sentence a module, each holder described once."""
    known: set[Identity] = set()
    sentences = []
    for use in used:
        sentences.append(use.sentence(known))
        known.update(holder.identity for holder in use.by[:LISTED])
    return "the driver is in use: " + "; ".join(sentences)


def look(paths: Paths, own: Collection[Identity], stack: Mapping[str, LoadedModule]) -> tuple[InUse, ...]:
    """Who but our own daemons uses the driver at this moment; `stack` is what was just read of its modules."""
    return in_use(*settled(paths, own, stack), own, processes.blindness(paths))


def settled(
    paths: Paths, own: Collection[Identity], stack: Mapping[str, LoadedModule]
) -> tuple[Mapping[str, LoadedModule], tuple[Holder, ...]]:
    """The modules and who holds them, both read anew while a reference has nobody to it."""
    found = read(paths, stack)
    for _ in range(LOOKS - 1):
        if not any(use.unseen for use in in_use(stack, found, own)):
            break
        stack = modules.read_stack(paths)
        found = read(paths, stack)
    return stack, found


def read(paths: Paths, stack: Mapping[str, LoadedModule]) -> tuple[Holder, ...]:
    """Every process we may look into that holds one of these modules, whatever the device node's name there.

    Mappings are looked at only where open files do not explain the refcnt, and single threads only where both do not:
    a thread may have its own file table (clone(2) without CLONE_FILES), or have outlived the first one.
    """
    majors = read_majors(paths)
    if not majors or not any(module.handles for module in stack.values()):
        return ()
    scanner = Scanner(paths, majors)
    found: dict[int, Holder] = {}
    for handles_of in (scanner.open_files, scanner.mappings, partial(_of_threads, scanner)):
        for pid in scanner.pids():
            if handles_of(pid):
                _add(paths, found, pid, handles_of, closed=handles_of == scanner.mappings)
        for pid, shared in scanner.shared_files(sorted(found)).items():
            maps = found[pid].maps if handles_of == scanner.open_files else scanner.mapped_modules(pid)
            found[pid] = replace(found[pid], shared=tuple(sorted(shared.items())), maps=maps)
        if not any(_unexplained(module, found.values()) for module in stack.values()):
            break
    return tuple(found[pid] for pid in sorted(found))


def in_use(
    stack: Mapping[str, LoadedModule], holders: Collection[Holder], own: Collection[Identity], blind: str = ""
) -> tuple[InUse, ...]:
    """The modules that somebody other than our own daemons keeps from being unloaded; the refcnt has the last word.

    What our daemons map may hold more than can be counted: it is told once they are stopped, before anything is
    unloaded.
    """
    found = []
    for module in stack.values():
        here = [holder for holder in holders if dict(holder.handles).get(module.name)]
        others = tuple(holder for holder in here if holder.identity not in own)
        daemons = [holder for holder in here if holder.identity in own]
        mapped = any(module.name in holder.maps for holder in here)
        unseen = _unexplained(module, holders)
        if not others and any(module.name in daemon.maps for daemon in daemons):
            continue
        if module.handles and (others or unseen):
            ours = sum(daemon.counted(module.name) for daemon in daemons)
            found.append(InUse(module.name, module.refcnt, module.holders, ours, others, unseen, blind, mapped))
    return tuple(found)


def _unexplained(module: LoadedModule, holders: Iterable[Holder]) -> int:
    """References of nobody we know; a file shared by a fork is seen twice and counted once."""
    return max(0, module.handles - sum(holder.counted(module.name) for holder in holders))


def _of_threads(scanner: Scanner, pid: int) -> Counter[str]:
    """References through the other threads of a process; each has a folder in /proc, though it is not listed."""
    found: Counter[str] = Counter()
    for thread in scanner.threads(pid):
        found |= scanner.open_files(thread) | scanner.mappings(thread)
    return found


def _add(paths: Paths, found: dict[int, Holder], pid: int, handles_of: HandlesOf, *, closed: bool) -> None:
    """Note a holder, or what a known one holds besides.

    The pid may have been given to another process since it was looked at: it is looked at again between two readings
    of its identity, and described only if both agree.
    """
    process = processes.read(paths, pid)
    if process is None:
        return
    command, container = processes.read_command(paths, process), containers.read(paths, pid)
    handles, again = handles_of(pid), processes.read(paths, pid)
    if not handles or again is None or again.identity != process.identity:
        return
    known = found.get(pid)
    if known is not None and known.identity == process.identity:
        handles |= Counter(dict(known.handles))
        closed = known.closed
    taken = tuple(sorted(handles.items()))
    started = processes.started_at(paths, process)
    found[pid] = Holder(pid, command, started, taken, process.started, container, closed)
