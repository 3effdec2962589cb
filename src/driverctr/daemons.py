"""The driver's daemons: rows of a table, started, found again by identity, watched, stopped."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.facts import processes
from driverctr.facts.processes import Identity, Process
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Whoever looks for daemons, as `driverctr status` does, needs none of what starts and stops them.
    from driverctr.run import Runner, Wait
    from driverctr.syslog import Syslog

STOP_LIMIT = 10.0
STOP_SHARE = 0.5
"""Seconds a daemon may take to end by itself, and at a stop of what is left: the rest is for the modules."""

KILL_LIMIT = 5.0
"""Seconds for the kernel to end a killed daemon, whose open GPUs it closes."""

COMM_LENGTH = 15
"""Characters of a name the kernel keeps beside a command line (TASK_COMM_LEN less its end)."""

CLOCK_ERROR = 1.0
"""Seconds a file's time and a process' start may be apart for one moment: jiffies, and the boot time's whole second."""


@frozen
class Daemon:
    """One row: name, command line, and where it writes its pid, below the root."""

    name: str
    argv: tuple[str, ...]
    pid_file: str


@frozen
class Running:
    """A daemon that lives: pid and start (clock ticks since boot, which no clock change moves) are its identity."""

    daemon: Daemon
    pid: int
    started: int

    @property
    def identity(self) -> Identity:
        """As processes have it."""
        return self.pid, self.started


PERSISTENCED = Daemon(
    "nvidia-persistenced",
    ("nvidia-persistenced", "--persistence-mode"),
    "var/run/nvidia-persistenced/nvidia-persistenced.pid",
)

DAEMONS = (PERSISTENCED,)


def find(paths: Paths, daemon: Daemon) -> Running | None:
    """The living daemon its pid file names. A pid alone is not believed: it may belong to somebody else by now.

    The name must be the daemon's, and it must hold the pid file open, as nvidia-persistenced does to lock it, or at
    least have started before the file was written: who was given the pid later, started later. Only the second
    is in doubt where the clock was set meanwhile.
    """
    file = paths.root / daemon.pid_file
    text = read_text(file) or ""
    process = processes.read(paths, int(text)) if re.fullmatch(r"[0-9]{1,10}", text) else None
    if process is None or process.state in "XZ":
        return None
    if Path(processes.read_words(paths, process)[0]).name not in (daemon.name, daemon.name[:COMM_LENGTH]):
        return None
    if not _holds(paths, process.pid, file) and not _started_before(paths, process, file):
        return None
    return Running(daemon, process.pid, process.started)


def find_all(paths: Paths) -> tuple[Running, ...]:
    """All of the table that live."""
    return tuple(found for daemon in DAEMONS if (found := find(paths, daemon)))


def _holds(paths: Paths, pid: int, file: Path) -> bool:
    """Whether a process has this very file open."""
    try:
        return processes.has_open(paths, pid, file.stat())
    except OSError:
        return False


def _started_before(paths: Paths, process: Process, file: Path) -> bool:
    try:
        return processes.started_at(paths, process) <= file.stat().st_mtime + CLOCK_ERROR
    except OSError:
        return False


def start(
    paths: Paths, daemon: Daemon, runner: Runner, syslog: Syslog, limit: float, wait: Wait | None = None
) -> Running:
    """Start a daemon and wait until it is up, `limit` seconds at most: nvidia-persistenced opens every GPU before.

    `wait(descriptor, seconds)` may give up earlier than that. Raises DriverError: daemon-failed with its reason from
    syslog, command-failed where it takes too long.
    """
    _clear_leftovers(paths, daemon)
    printed: list[str] = []
    status = runner.stream(daemon.argv, printed.append, limit=limit, wait=wait)
    said = tell(runner, daemon, syslog)
    running = find(paths, daemon)
    if status == 0 and running is not None:
        return running
    reason = "; ".join(said or printed) or "it gave no reason; look into the host's syslog"
    raise DriverError(
        Code.DAEMON_FAILED,
        f"{daemon.name} did not start (exit status {status}): {reason}",
        f"Its own words are in the log above; try `{' '.join(daemon.argv)} --verbose` in the container",
    )


def tell(runner: Runner, daemon: Daemon, syslog: Syslog) -> list[str]:
    """Hand a daemon's syslog messages to our log, and return them."""
    said = syslog.read()
    for line in said:
        runner.log.info(f"{daemon.name} says: {line}")
    return said


def stop(
    paths: Paths,
    running: Running,
    limit: float,
    wait: Wait | None = None,
    *,
    kill_limit: float = KILL_LIMIT,
) -> None:
    """SIGTERM, wait, after `limit` seconds SIGKILL; only if the pid is still that daemon. Its files go with it.

    `wait(descriptor, seconds)` may give up earlier than that. A daemon that hangs in the kernel is left after
    `kill_limit` more seconds.
    """
    import signal

    from driverctr import pidfd
    from driverctr.run import wait_for_end

    with contextlib.suppress(ProcessLookupError), _handle_on(running.pid) as handle:
        if find(paths, running.daemon) == running:
            pidfd.send(handle, running.pid, signal.SIGTERM)
            if not wait_for_end(running.pid, limit, wait):
                pidfd.send(handle, running.pid, signal.SIGKILL)
                wait_for_end(running.pid, kill_limit)
    _clear_leftovers(paths, running.daemon)


@contextlib.contextmanager
def _handle_on(pid: int) -> Iterator[int]:
    """Signals sent through it reach nobody else, even if the pid is given again, as far as the kernel can tell."""
    from driverctr import pidfd

    handle = pidfd.opened(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def _clear_leftovers(paths: Paths, daemon: Daemon) -> None:
    """A killed daemon leaves pid file and socket, and would not start beside them."""
    if find(paths, daemon) is None:
        for leftover in (paths.root / daemon.pid_file).parent.glob("*"):
            leftover.unlink(missing_ok=True)
