"""Whoever watches from outside: metrics by HTTP and in a file, where they are switched on; nothing is imported else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from driverctr.files import read_text
from driverctr.records import field, mutable

if TYPE_CHECKING:
    from driverctr.log import Log
    from driverctr.metrics.monitor import Monitor
    from driverctr.metrics.server import Server
    from driverctr.status import Status
    from driverctr.steps import Tools

REMEDIES = {
    "METRICS_ADDRESS": "give it an address of this node, or :PORT, and a free port",
    "METRICS_TEXTFILE": "mount node-exporter's folder, and give the path of a file in it",
}

ENDS = ("failed", "stopped", "stuck")
"""Phases in which a start ends: what the file tells of one then stays so."""

Watch = Callable[["Status"], "Status"]
"""Hears a status that begins to hold; returns it, with what is degraded here added."""


def unwatched(status: Status) -> Status:
    """Where nobody watches."""
    return status


@contextlib.contextmanager
def watched(tools: Tools) -> Iterator[Watch]:
    """For the length of the block whoever watches is told what is handed to the function given."""
    if tools.config.metrics_address is None and tools.config.metrics_textfile is None:
        yield unwatched
        return
    watchers = Watchers(tools)
    try:
        yield watchers.tell
    finally:
        watchers.end()


def forget(tools: Tools) -> None:
    """Remove the file that a start left which is no more."""
    remove(tools.config.metrics_textfile, tools.runner.log)


def remove(path: Path | None, log: Log) -> None:
    """Remove the file, if there is one; one that cannot be removed is logged."""
    try:
        if path is not None:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning(f"METRICS_TEXTFILE={path} stays: {error.strerror}")


def is_of_killed(path: Path | None) -> bool:
    """Whether the file tells of a start that nobody lived to end; where none runs, that is no more so."""
    text = None if path is None else read_text(path)
    return text is not None and not any(f'driverctr_phase{{phase="{end}"}} 1.0' in text for end in ENDS)


@mutable
class Watchers:
    """The server and the file. Neither fails a driver: what goes wrong is logged, degrades, and is tried again.

    `troubles` are what goes wrong now, by setting; `told` all that ever did.
    """

    tools: Tools
    server: Server | None = None
    troubles: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    monitor: Monitor = field(init=False)

    def __post_init__(self) -> None:
        """Import what is needed, and what was deferred: a second thread will run (deferred.defer_of_others)."""
        with self.tools.signals.held():
            from driverctr.deferred import load_of_others
            from driverctr.metrics.monitor import Monitor

            load_of_others()
            self.monitor = Monitor(self.tools)
            if (path := self.tools.config.metrics_textfile) is not None:
                self._attempt("METRICS_TEXTFILE", str(path), lambda: self._begin_file(path))

    def tell(self, status: Status) -> Status:
        """Have it served and written."""
        with self.tools.signals.held():
            self.monitor.tell(status)
            self._serve()
            status = self._with_troubles(status)
            self.monitor.tell(status)
            self._write()
            return self._with_troubles(status)

    def end(self) -> None:
        """The process ends: nobody is served, and the file tells of a failure or is gone."""
        with self.tools.signals.held():
            if self.server is not None:
                self.server.close()
            last, path = self.monitor.told, self.tools.config.metrics_textfile
            if path is not None and last is not None:
                from driverctr.metrics import textfile

                self._attempt("METRICS_TEXTFILE", str(path), lambda: textfile.end(path, last))

    def _begin_file(self, path: Path) -> None:
        from driverctr.metrics import textfile

        textfile.begin(path)

    def _serve(self) -> None:
        """Listen, unless we do: an address that another has now may be free at the next status."""
        address = self.tools.config.metrics_address
        if address is None or self.server is not None:
            return
        from driverctr.metrics import server

        def begin() -> None:
            made = server.Server(server.listen(*address), self.monitor)
            made.start()
            self.server = made

        host, port = address
        self._attempt("METRICS_ADDRESS", f"[{host}]:{port}" if ":" in host else f"{host}:{port}", begin)

    def _write(self) -> None:
        if (path := self.tools.config.metrics_textfile) is None:
            return
        from driverctr.metrics import monitor, textfile

        if self.monitor.told is not None and self.monitor.told.phase in monitor.WATCHED:
            self.monitor.refresh()
        self._attempt("METRICS_TEXTFILE", str(path), lambda: textfile.write(path, self.monitor.collect()))

    def _attempt(self, setting: str, value: str, act: Callable[[], None]) -> None:
        """Act; say what fails when it begins to fail."""
        try:
            act()
        except Exception as error:  # noqa: BLE001  # not even a bug here may end a driver that serves
            known = isinstance(error, OSError) and error.errno
            why = os.strerror(known) if known else f"{type(error).__name__}: {error}"
            trouble = f"no metrics by {setting}={value}: {why} ({REMEDIES[setting]})"
            if self.troubles.get(setting) != trouble:
                self.tools.runner.log.warning(f"{trouble}; it is tried again with each change of the status")
            self.troubles[setting] = trouble
            self.told.add(trouble)
        else:
            if self.troubles.pop(setting, ""):
                self.tools.runner.log.info(f"metrics by {setting}={value} again")

    def _with_troubles(self, status: Status) -> Status:
        """What is over is degraded no more, what is wrong now is."""
        others = (reason for reason in status.degraded if reason not in self.told)
        degraded = (*others, *self.troubles.values())
        return status if degraded == status.degraded else status.changed(degraded=degraded)
