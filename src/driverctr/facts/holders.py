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

MINOR_MODESET = 254
"""NVIDIA's nv-chardev-numbers.h: nvidia-modeset answers under the core module's major."""


@dataclass(frozen=True)
class Holder:
    """A process with open handles: pid, command, start (seconds since the epoch), references taken by module."""

    pid: int
    command: str
    started: float
    handles: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        """For a sentence."""
        return f"pid {self.pid} ({self.command})"


@dataclass(frozen=True)
class InUse:
    """A module that cannot be unloaded now: its refcnt, the references neither modules nor we hold, and by whom."""

    module: str
    refcnt: int
    handles: int
    by: tuple[Holder, ...]

    def __str__(self) -> str:
        """For a sentence; what cannot be seen is said."""
        users = ", ".join(map(str, self.by)) or f"{self.handles} reference(s) by processes not visible from here"
        return f"{self.module} has refcnt {self.refcnt}: {users}"


def read_majors(paths: Paths) -> dict[int, str]:
    """NVIDIA's character majors and the first name each is registered under, from /proc/devices."""
    majors: dict[int, str] = {}
    for line in (read_text(paths.proc / "devices") or "").splitlines():
        if line.startswith("Block"):
            break
        number, _, name = line.strip().partition(" ")
        if name.startswith("nvidia"):
            majors.setdefault(int(number), name)
    return majors


def references(device: str, minor: int) -> Counter[str]:
    """What one open handle adds to the refcnt of modules, by the name its major is registered under.

    chrdev_open takes two references on the owner, for the cdev and for its operations (Linux, fs/char_dev.c);
    nvidia-frontend, until branch 535, one more on the module behind the minor (NVIDIA, nv-frontend.c).
    """
    behind = "nvidia_modeset" if minor == MINOR_MODESET else "nvidia"
    match device:
        case "nvidia-uvm":
            return Counter({"nvidia_uvm": 2})
        case "nvidia-frontend":
            return Counter({"nvidia": 2}) + Counter({behind: 1})
        case "nvidia" | "nvidiactl" | "nvidia-modeset":
            return Counter({behind: 2})
        case _:
            return Counter({"nvidia": 2})


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
            found.append(InUse(module.name, module.refcnt, module.handles - ours, others))
    return tuple(found)


def _handles(folder: Path, majors: dict[int, str]) -> Counter[str]:
    """References by module; a process that ends meanwhile, or is closed to us, counts as none."""
    handles: Counter[str] = Counter()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat()
                device = majors.get(os.major(status.st_rdev)) if stat.S_ISCHR(status.st_mode) else None
                if device is not None:
                    handles += references(device, os.minor(status.st_rdev))
    return handles


def _describe(pid: int, handles: Counter[str]) -> Holder:
    import psutil

    command, started = "ended meanwhile", 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        command, started = " ".join(process.cmdline()) or process.name(), process.create_time()
    return Holder(pid, command, started, tuple(sorted(handles.items())))
