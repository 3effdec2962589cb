"""The driver's daemons: rows of a table, started, found again by identity, watched, stopped."""

import contextlib
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.run import Runner, wait_for_end
from driverctr.syslog import Syslog

START_LIMIT = 120.0
"""Seconds a daemon may take to be up: nvidia-persistenced opens every GPU before it returns."""

STOP_LIMIT = 10.0
"""Seconds a daemon may take to end by itself: half of what a stop has, the other half is for the modules."""

KILL_LIMIT = 5.0
"""Seconds for the kernel to end a killed daemon, whose open GPUs it closes."""


@dataclass(frozen=True)
class Daemon:
    """One row: name, command line, and where it writes its pid, below the root."""

    name: str
    argv: tuple[str, ...]
    pid_file: str


@dataclass(frozen=True)
class Running:
    """A daemon that lives: pid and start (clock ticks since boot, which no clock change moves) are its identity."""

    daemon: Daemon
    pid: int
    started: int


PERSISTENCED = Daemon(
    "nvidia-persistenced",
    ("nvidia-persistenced", "--persistence-mode"),
    "var/run/nvidia-persistenced/nvidia-persistenced.pid",
)

DAEMONS = (PERSISTENCED,)


def find(paths: Paths, daemon: Daemon) -> Running | None:
    """The living daemon its pid file names; a pid that now belongs to something else is not it."""
    import psutil

    text = read_text(paths.root / daemon.pid_file) or ""
    if not re.fullmatch(r"[0-9]{1,10}", text):
        return None
    try:
        process = psutil.Process(int(text))
        words = process.cmdline()
        named = Path(words[0]).name if words else process.name()
        alive = process.status() != psutil.STATUS_ZOMBIE
        started = _start_ticks(paths, process.pid)
        return Running(daemon, process.pid, started) if named == daemon.name and alive else None
    except (psutil.Error, OSError):
        return None


def _start_ticks(paths: Paths, pid: int) -> int:
    """The 22nd field of /proc/<pid>/stat (proc(5)); the 2nd, the name, may hold anything up to the last bracket."""
    return int((paths.proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])


def start(paths: Paths, daemon: Daemon, runner: Runner, syslog: Syslog) -> Running:
    """Start a daemon and wait until it is up; raises DriverError (daemon-failed) with its reason from syslog."""
    _clear_leftovers(paths, daemon)
    result = runner.run(daemon.argv, limit=START_LIMIT, check=False)
    said = tell(runner, daemon, syslog)
    running = find(paths, daemon)
    if result.status == 0 and running is not None:
        return running
    reason = "; ".join(said) or result.stderr.strip() or "it gave no reason; look into the host's syslog"
    raise DriverError(
        Code.DAEMON_FAILED,
        f"{daemon.name} did not start (exit status {result.status}): {reason}",
        f"Its own words are in the log above; try `{' '.join(daemon.argv)} --verbose` in the container",
    )


def tell(runner: Runner, daemon: Daemon, syslog: Syslog) -> list[str]:
    """Hand a daemon's syslog messages to our log, and return them."""
    said = syslog.read()
    for line in said:
        runner.log.info(f"{daemon.name} says: {line}")
    return said


def stop(paths: Paths, running: Running, limit: float, wait: Callable[[int, float], bool] | None = None) -> None:
    """SIGTERM, wait, after `limit` seconds SIGKILL; only if the pid is still that daemon. Its files go with it.

    `wait(descriptor, seconds)` may give up earlier than that.
    """
    if find(paths, running.daemon) == running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGTERM)
            if not wait_for_end(running.pid, limit, wait):
                os.kill(running.pid, signal.SIGKILL)
                wait_for_end(running.pid, KILL_LIMIT)
    _clear_leftovers(paths, running.daemon)


def _clear_leftovers(paths: Paths, daemon: Daemon) -> None:
    """A killed daemon leaves pid file and socket, and would not start beside them."""
    if find(paths, daemon) is None:
        for leftover in (paths.root / daemon.pid_file).parent.glob("*"):
            leftover.unlink(missing_ok=True)
