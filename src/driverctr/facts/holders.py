"""Who uses the driver: processes with NVIDIA's devices open or mapped, and modules that hold ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from driverctr.facts import containers, freeing, modules, processes
from driverctr.facts.containers import Container
from driverctr.facts.handles import Scanner, read_majors
from driverctr.facts.modules import LoadedModule
from driverctr.facts.processes import Identity
from driverctr.log import utc
from driverctr.paths import Paths
from driverctr.records import asdict, field, frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHORT_COMMAND = 60
"""Characters of a command line in a sentence."""

LISTED = 5
"""Holders named in a sentence for each module, and acts named: the termination message has room for 4 KB."""

IN_USE = "the driver is in use: "
ALL_OF_THEM = "`driverctr who` lists all"

HandlesOf = Callable[[int], Counter[str]]
"""References by module that one process holds in one way."""

LOOKS = 3
"""How often we look while a reference has nobody to it: a process that ended between two readings leaves one."""


@frozen
class Holder:
    """A process with open handles: pid, command, start (seconds since the epoch), references taken by module.

    `ticks` is its start by the kernel's clock: with the pid its identity. `closed`: it keeps mappings of files it
    has closed, and nothing open. `shared` is what of `handles` is through open files that another holder was counted
    for, `maps` the modules it holds by mappings, maybe more often than `handles` says. `deaf`: SIGTERM does not end it.
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
    deaf: bool = False

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

    @property
    def action(self) -> str:
        """What ends it and keeps it from coming back."""
        return freeing.how(self.pid, self.command, self.container, deaf=self.deaf)

    def __str__(self) -> str:
        """For a sentence: pid, command, and in brackets container, pod or unit, and start."""
        since = f"since {utc(self.started)}" if self.started else ""
        mapping = "by a mapping alone" if self.closed else ""
        about = ", ".join(filter(None, (str(self.container), mapping, since)))
        return f"{self.brief} [{about}]" if about else self.brief

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "handles": dict(self.handles),
            "shared": dict(self.shared),
            "action": self.action,
        }


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
        return f"{self.head}: {', '.join(words for words, _ in self.users(limit=LISTED))}"

    @property
    def head(self) -> str:
        """The module and its references, with what part of them is in nobody's way."""
        by_modules = f"{len(self.modules)} by {', '.join(self.modules)}" if self.modules else ""
        by_daemons = f"{self.ours} by our own daemons" if self.ours else ""
        parts = ", ".join(filter(None, (by_modules, by_daemons)))
        return f"{self.module} has refcnt {self.refcnt}" + (f" ({parts})" if parts else "")

    def users(self, known: Collection[Identity] = (), limit: int | None = None) -> list[tuple[str, str]]:
        """Each in words, and what to do about it; those `known` were described before, and are named only."""
        shown = self.by[:limit]
        users = [(holder.brief, "") if holder.identity in known else (str(holder), holder.action) for holder in shown]
        if len(self.by) > len(shown):
            users.append((f"{len(self.by) - len(shown)} more", ALL_OF_THEM))
        if self.unseen:
            cure = f" ({self.blind})" if self.blind else ""
            who = "mappings of these or by holders" if self.mapped else "holders"
            words = f"{self.unseen} reference(s) by {who} not visible from here{cure}"
            users.append((words, freeing.how_unseen(self.module, self.blind)))
        return users

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        pids = [holder.pid for holder in self.by]
        said = {"pids": pids, "unseen": self.unseen, "sentence": str(self), "remedy": remedy((self,))}
        return {"module": self.module, "refcnt": self.refcnt, **said}


def describe(used: Sequence[InUse]) -> str:
    """One sentence a module, each holder described once."""
    said = (f"{head}: {', '.join(words for words, _ in users)}" for head, users in tell(used, LISTED))
    return IN_USE + "; ".join(said)


def tell(used: Iterable[InUse], limit: int | None = None) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The words of every "in use": a module's head, and its users, each with what to do; no more than `limit` of them.

    Each is described once, and only named the next time.
    """
    known: set[Identity] = set()
    for use in used:
        yield use.head, use.users(known, limit)
        known.update(holder.identity for holder in use.by[:limit])


def remedy(used: Sequence[InUse]) -> str:
    """What frees the driver of all of them, each act named once."""
    users = {holder.identity: holder for use in used for holder in use.by}
    acts: dict[str, list[int]] = {}
    for holder in users.values():
        acts.setdefault(freeing.together(holder.action), []).append(holder.pid)
    named = [_with_pids(act, pids) for act, pids in acts.items()]
    named += [freeing.how_unseen(use.module, use.blind) for use in used if use.unseen]
    named = list(dict.fromkeys(named))
    if len(named) > LISTED:
        named[LISTED:] = [f"{len(named) - LISTED} more ({ALL_OF_THEM})"]
    if any(holder.container.pod_uid for holder in users.values()):
        named.append(freeing.ON_KUBERNETES)
    return f"Free the GPU: {'; '.join(named)}"


def _with_pids(act: str, pids: Sequence[int]) -> str:
    """An act, and whom it ends: signals take pids, of all else it is told."""
    shown = [str(pid) for pid in pids[:LISTED]]
    more = f" and {len(pids) - LISTED} more" if len(pids) > LISTED else ""
    if act in freeing.SIGNALS:
        return f"{act} {' '.join(shown)}" + (f" ({more.strip()}: {ALL_OF_THEM})" if more else "")
    return f"{act} (pid {', '.join(shown)}{more})"


def look(paths: Paths, own: Collection[Identity], stack: Mapping[str, LoadedModule]) -> tuple[InUse, ...]:
    """Who but our own daemons uses the driver at this moment; `stack` is what was just read of its modules."""
    return in_use(*settled(paths, own, stack), own, processes.blindness(paths))


def settled(
    paths: Paths, own: Collection[Identity], stack: Mapping[str, LoadedModule], *, own_first: bool = False
) -> tuple[Mapping[str, LoadedModule], tuple[Holder, ...]]:
    """The modules and who holds them, both read anew while a reference has nobody to it.

    With `own_first` nobody else is looked at where our daemons have every reference there is, as on most nodes that
    idle. Who shares an open file with them is not told then: it is for who looks often, not for who acts on it.
    """
    first = own if own_first else ()
    found = read(paths, stack, first)
    for _ in range(LOOKS - 1):
        if not any(use.unseen for use in in_use(stack, found, own)):
            break
        stack = modules.read_stack(paths)
        found = read(paths, stack, first)
    return stack, found


def read(paths: Paths, stack: Mapping[str, LoadedModule], first: Collection[Identity] = ()) -> tuple[Holder, ...]:
    """Every process we may look into that holds one of these modules, whatever the device node's name there.

    Those that come `first` may have every reference there is; then nobody else is looked at. Mappings are looked at
    only where open files do not explain the refcnt, and single threads only where both do not: a thread may have its
    own file table (clone(2) without CLONE_FILES), or have outlived the first one.
    """
    majors = read_majors(paths)
    if not majors or not any(module.handles for module in stack.values()):
        return ()
    scanner = Scanner(paths, majors)
    found: dict[int, Holder] = {}
    ways = (scanner.open_files, scanner.mappings, partial(_of_threads, scanner))
    looks = [(ways[0], [pid for pid, _ in first])] if first else []
    for handles_of, pids in (*looks, *((way, None) for way in ways)):
        for pid in scanner.pids() if pids is None else pids:
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
    deaf = processes.is_deaf(paths, pid)
    found[pid] = Holder(pid, command, started, taken, process.started, container, closed, deaf=deaf)
