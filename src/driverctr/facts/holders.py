"""Processes that have NVIDIA's device nodes open."""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from driverctr.facts.modules import LoadedModule
from driverctr.files import read_text
from driverctr.paths import Paths


@dataclass(frozen=True)
class Holder:
    """A process with open handles: pid, command, start (seconds since the epoch), handles by module."""

    pid: int
    command: str
    started: float
    handles: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        """For a sentence."""
        return f"pid {self.pid} ({self.command})"


@dataclass(frozen=True)
class InUse:
    """A module that cannot be unloaded now: its refcnt, the references that are no module's, and by whom."""

    module: str
    refcnt: int
    handles: int
    by: tuple[Holder, ...]

    def __str__(self) -> str:
        """For a sentence; what cannot be seen is said."""
        users = ", ".join(map(str, self.by)) or f"{self.handles} holder(s) not visible from here"
        return f"{self.module} has refcnt {self.refcnt}: {users}"


def read_majors(paths: Paths) -> dict[int, str]:
    """NVIDIA's character majors → the module whose reference an open handle takes, from /proc/devices."""
    majors: dict[int, str] = {}
    for line in (read_text(paths.proc / "devices") or "").splitlines():
        if line.startswith("Block"):
            break
        number, _, name = line.strip().partition(" ")
        if name.startswith("nvidia"):
            majors[int(number)] = "nvidia_uvm" if name == "nvidia-uvm" else "nvidia"
    return majors


def read(paths: Paths) -> tuple[Holder, ...]:
    """Every process we may look into that has one of NVIDIA's device numbers open, whatever the node's name there."""
    majors = read_majors(paths)
    if not majors:
        return ()
    found = []
    for folder in paths.proc.iterdir():
        if folder.name.isdigit():
            handles = _handles(folder / "fd", majors)
            if handles:
                found.append(_describe(int(folder.name), handles))
    return tuple(sorted(found, key=lambda holder: holder.pid))


def in_use(
    stack: Mapping[str, LoadedModule], holders: Iterable[Holder], own_pids: Collection[int]
) -> tuple[InUse, ...]:
    """The modules that somebody other than our own daemons keeps from being unloaded."""
    found = []
    for module in stack.values():
        here = [(holder, dict(holder.handles).get(module.name, 0)) for holder in holders]
        others = tuple(holder for holder, handles in here if handles and holder.pid not in own_pids)
        ours = sum(handles for holder, handles in here if holder.pid in own_pids)
        if module.handles and (others or module.handles > ours):
            found.append(InUse(module.name, module.refcnt, module.handles, others))
    return tuple(found)


def _handles(folder: Path, majors: dict[int, str]) -> Counter[str]:
    """Open handles by module; a process that ends meanwhile, or is closed to us, counts as none."""
    handles: Counter[str] = Counter()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat()
                if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in majors:
                    handles[majors[os.major(status.st_rdev)]] += 1
    return handles


def _describe(pid: int, handles: Counter[str]) -> Holder:
    import psutil

    command, started = "ended meanwhile", 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        command, started = " ".join(process.cmdline()) or process.name(), process.create_time()
    return Holder(pid, command, started, tuple(sorted(handles.items())))
