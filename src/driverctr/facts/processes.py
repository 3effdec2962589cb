"""A process as procfs tells it: identity, command, start. Read here, not by psutil, which knows no tree but /proc."""

import os
import re
from pathlib import Path

from driverctr.conceal import conceal_command
from driverctr.facts import privilege
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

Identity = tuple[int, int]
"""Pid and start in clock ticks since boot: a pid alone is given again, and the clock of the wall may be set."""

HOST_PID_NAMESPACE = "pid:[4026531836]"
"""The first PID namespace (Linux, include/linux/proc_ns.h PROC_PID_INIT_INO)."""

TO_LOOK = ("SYS_PTRACE", "SYS_ADMIN")
"""Capabilities needed for /proc/<pid>/fd and for /proc/<pid>/map_files of others (proc(5))."""

TERM_BIT = 1 << (15 - 1)
"""SIGTERM (signal(7): 15 everywhere) in a mask of signals."""

UNREADABLE_STATES = "DXZ"
"""Dead, or asleep in the kernel, maybe with the lock that a read of its memory, such as its command line, waits for."""


@frozen
class Process:
    """One process: `comm` is its short name, `state` a letter (proc_pid_stat(5)), `started` in ticks since boot."""

    pid: int
    comm: str
    state: str
    started: int

    @property
    def identity(self) -> Identity:
        """What tells it from a later one with the same pid."""
        return self.pid, self.started


def read(paths: Paths, pid: int) -> Process | None:
    """The process that has this pid now, or None; its name may hold anything up to the last bracket."""
    before, _, after = (read_text(paths.proc / str(pid) / "stat") or "").rpartition(")")
    fields = after.split()
    return Process(pid, before.partition("(")[2], fields[0], int(fields[19])) if len(fields) > 19 else None


def read_words(paths: Paths, process: Process) -> list[str]:
    """Its command line, or its short name alone where there is none or reading it might not return."""
    text = "" if process.state in UNREADABLE_STATES else read_text(paths.proc / str(process.pid) / "cmdline") or ""
    return text.strip("\0").split("\0") if text.strip("\0") else [process.comm]


def is_deaf(paths: Paths, pid: int) -> bool:
    """Whether SIGTERM does not end it: it ignores it, or is the first of a PID namespace and has no handler.

    Masks and pids in each namespace are in /proc/<pid>/status (proc_pid_status(5), pid_namespaces(7)).
    """
    fields = dict(
        re.findall(r"^(SigIgn|SigCgt|NSpid):\s*(.+)$", read_text(paths.proc / str(pid) / "status") or "", re.M)
    )
    ignored, caught = (bool(int(fields.get(name, "0"), 16) & TERM_BIT) for name in ("SigIgn", "SigCgt"))
    namespaces = fields.get("NSpid", "").split()
    return ignored or (len(namespaces) > 1 and namespaces[-1] == "1" and not caught)


def has_open(paths: Paths, pid: int, file: os.stat_result) -> bool:
    """Whether a process has this very file open, as far as we may look into it."""
    try:
        return any(_is_same(opened, file) for opened in (paths.proc / str(pid) / "fd").iterdir())
    except OSError:
        return False


def _is_same(opened: Path, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(opened.stat(), file)
    except OSError:
        return False


def started_at(paths: Paths, process: Process) -> float:
    """Its start in seconds since the epoch, by the clock as it is set now; up to a second early (proc_stat(5))."""
    boot = re.search(r"^btime (\d+)$", read_text(paths.proc / "stat") or "", re.MULTILINE)
    return (int(boot[1]) if boot else 0) + process.started / os.sysconf("SC_CLK_TCK")


def blindness(paths: Paths) -> str:
    """Why there may be processes that we cannot look into, with the cure; "" where we see all."""
    try:
        namespace = str((paths.proc / "self/ns/pid").readlink())
    except OSError:
        namespace = HOST_PID_NAMESPACE
    if namespace != HOST_PID_NAMESPACE:
        return "run the container with --pid=host (hostPID) to see who"
    if set(TO_LOOK) & set(privilege.read(paths).missing or ()):
        return "run the container with --privileged to see who"
    return ""


def read_command(paths: Paths, process: Process) -> str:
    """Its command line as it may be shown, with no secret in it."""
    return conceal_command(read_words(paths, process))
