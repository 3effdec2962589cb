"""While the driver serves: modules for kernels that are installed on the host and have not run yet.

The work is done by a program of its own, `nvidia-driver update`, one at a time and at low priority, so that nothing of
it stays in the memory of the process that waits. Here is only which kernel is due, what the program says, how it ended.
"""

import contextlib
import json
import select
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from driverctr import kernelhook
from driverctr.errors import DriverError, code_of
from driverctr.facts import installed
from driverctr.facts.installed import Installed, Mark
from driverctr.log import Level, Log
from driverctr.log_fields import FIELDS
from driverctr.modules import pins
from driverctr.modules.store import ENTRIES, GOES, Store, locate, outlives_container
from driverctr.paths import Paths
from driverctr.run import Background, Runner
from driverctr.signals import Signals
from driverctr.steps import Tools
from driverctr.userspace import image

if TYPE_CHECKING:
    from driverctr.log import Fields

FIRST_PAUSE = 3600.0
LONGEST_PAUSE = 24 * 3600.0
"""Seconds: what failed is tried again after FIRST_PAUSE, then after twice as long each time."""

END_GRACE = 0.5
"""Seconds the program has after SIGTERM for taking its scratch folder away."""

CLOSING = 2.0
"""Seconds from its last word to its end."""


@dataclass
class Try:
    """The last try for a kernel: the state of its files then, why it failed ("" if not), when the next is due."""

    mark: Mark
    reason: str = ""
    pause: float = FIRST_PAUSE
    due: float = 0.0


OF_LINES = [field.name for field in FIELDS if field.when != "always"]
"""What a line of the program's log has that is handed on beside its words."""


@dataclass
class Prebuild:
    """One look a minute starts what is due. Also a hint, by what the program says (driverctr.hints).

    `environment` has the settings of this start; `store` is the folder whose entries we see to, None where PREBUILD or
    the store says so. What becomes of each kernel is told by `tell(next_kernels=...)`.
    """

    paths: Paths
    runner: Runner
    signals: Signals
    tell: Callable[..., None]
    environment: Mapping[str, str] = field(default_factory=dict)
    store: Path | None = None
    there: frozenset[str] = frozenset()
    tries: dict[str, Try] = field(default_factory=dict)
    child: Background | None = None
    building: str = ""
    last_error: str = ""
    trouble: str = ""
    _output: select.epoll = field(default_factory=select.epoll)

    @property
    def log(self) -> Log:
        """Ours."""
        return self.runner.log

    def after(self, look: Callable[[], float]) -> Callable[[], float]:
        """The look at the driver, followed by ours: nothing wakes the wait for it."""

        def look_at_both() -> float:
            seconds = look()
            self.look()
            return seconds

        return look_at_both

    def look(self) -> None:
        """Start the program for the newest kernel that is due, unless it runs."""
        if self.store is None or self.child is not None:
            return
        try:
            there = installed.read(self.paths)
            found = installed.upcoming(self.paths, there)
            self.trouble = ""
        except (OSError, DriverError) as error:
            if str(error) != self.trouble:
                self.trouble = str(error)
                self.log.warning(f"the kernels installed on the host cannot be read: {error}", code=code_of(error))
            return
        self._forget_removed(self.store, frozenset(each.release.text for each in there))
        self.tries = {
            each.release.text: self.tries[each.release.text] for each in found if each.release.text in self.tries
        }
        lost = lost_releases(self.store)
        for each in found:
            if self._is_due(each, lost):
                with self.signals.held():
                    self._start(each)
                return

    def _forget_removed(self, store: Path, there: frozenset[str]) -> None:
        """See to the pins whenever other kernels are installed than at the last look; what fails is for the next."""
        if there == self.there:
            return
        try:
            forget_removed(store, there, self.log)
            self.there = there
        except DriverError as error:
            self.log.debug(f"what is pinned for kernels that were removed stays: {error}", code=error.code.value)

    def _is_due(self, kernel: Installed, lost: Collection[str]) -> bool:
        """A kernel not seen before, one whose files or headers were changed, whose pause is over, or modules lost."""
        last = self.tries.get(kernel.release.text)
        if last is None or last.mark != kernel.mark:
            return True
        return time.monotonic() >= last.due if last.reason else kernel.release.text in lost

    def _start(self, kernel: Installed) -> None:
        release = kernel.release.text
        former = self.tries.get(release)
        pause = former.pause if former and former.mark == kernel.mark else FIRST_PAUSE
        self.tries[release] = Try(kernel.mark, pause=pause)
        self.building, self.last_error = release, ""
        self.log.info(f"kernel {release} is installed on the host: its modules are had beforehand")
        try:
            self.child = self.runner.start(
                ["nvidia-driver", "update", "--kernel", release],
                extra_env={**self.environment, "LOG_FORMAT": "json"},
            )
        except DriverError as error:
            self._conclude(error.message)
            return
        self._output.register(self.child, select.EPOLLIN)
        self._tell()

    def fileno(self) -> int:
        """For a selector: readable when the program has said something or has ended."""
        return self._output.fileno()

    def children(self) -> set[int]:
        """Processes that nobody else may reap."""
        return {self.child.pid} if self.child else set()

    def read(self) -> bool:
        """Relay what the program says; when it has ended, the next look may start another."""
        if self.child is None:
            return False
        for line in self.child.read():
            self._relay(line)
        if not self.child.at_end:
            return False
        self._output.unregister(self.child)
        child, self.child = self.child, None
        status = child.end(CLOSING)
        ended = f"it was ended by signal {-status}" if status < 0 else f"it ended with status {status}"
        self._conclude("" if status == 0 else self.last_error or f"{ended}, without a word about why")
        return True

    def _relay(self, line: str) -> None:
        """One line of the program's log becomes one of ours."""
        try:
            said = json.loads(line)
            level, message = Level(said["level"]), str(said["message"])
        except (ValueError, KeyError, TypeError):
            level, message, said = Level.INFO, line, {}
        if level is Level.ERROR:
            self.last_error = message
        fields = cast("Fields", {name: said[name] for name in OF_LINES if name in said})
        self.log.write(level, f"for kernel {self.building}: {message}", {**fields, "kernel": self.building})

    def _conclude(self, reason: str) -> None:
        last = self.tries[self.building]
        if not reason and self.store is not None and self.building in lost_releases(self.store):
            reason = "it ended well, and what it made is not in the store"
        last.reason = reason
        if reason:
            last.due = time.monotonic() + last.pause
            self.log.warning(
                f"no modules for kernel {self.building} yet; the next try is in {last.pause / 3600:.0f} h, "
                f"or when its headers change: {reason}"
            )
            last.pause = min(LONGEST_PAUSE, last.pause * 2)
        self.building = ""
        self._tell()

    def _tell(self) -> None:
        """What the status cannot see by itself: what is being built, and what failed why."""
        told: dict[str, Any] = {
            release: {"state": "failed", "reason": last.reason, "next_try": time.time() + last.due - time.monotonic()}
            for release, last in self.tries.items()
            if last.reason
        }
        if self.building:
            told[self.building] = {"state": "building"}
        self.tell(next_kernels=told)

    def stop(self) -> None:
        """End the program and all it has started, within a second."""
        with self.signals.held():
            if self.child is not None:
                self.log.info(f"the build for kernel {self.building} is given up")
                self.child.ask_to_end()
                self.child.end(0.0 if self.signals.hurried else END_GRACE)
                self.child, self.building = None, ""
            self._output.close()


def lost_releases(store: Path) -> set[str]:
    """Kernels whose modules were made and went since: set aside, or deleted; none where that is not known."""
    with contextlib.suppress(OSError, DriverError):
        return {release for release, digest in pins.read(store).next.items() if not (store / ENTRIES / digest).is_dir()}
    return set()


def forget_removed(store: Path, there: frozenset[str], log: Log) -> None:
    """Modules for a kernel that is on the host no more need not be kept; where the host is not seen they are.

    Raises DriverError (store-unusable).
    """
    for release in pins.read(store).next if there else ():
        if release not in there:
            pins.unpin_next(store, release)
            log.info(f"kernel {release} is on the host no more: its modules may go")


@contextlib.contextmanager
def serving(tools: Tools, tell: Callable[..., None]) -> Iterator[Prebuild]:
    """For as long as a driver serves: the host's hook, and the look-out for kernels that come next."""
    store = find_store(tools) if tools.config.prebuild else None
    made = Prebuild(tools.paths, tools.runner, tools.signals, tell, tools.config.given, store)
    with kernelhook.installed(tools.paths, tools.runner.log):
        try:
            yield made
        finally:
            made.stop()


def find_store(tools: Tools) -> Path | None:
    """The store's folder; why there is none, or why what is built now may not be there after a boot, is said."""
    built_for = image.read(tools.paths.root).kernel_release
    if built_for and not tools.config.precompiled_fallback:
        tools.runner.log.info(f"no modules are built for kernels that come next: this image is for {built_for}")
        return None
    try:
        folder = Store.open(locate(tools.paths, tools.config), tools.runner.log).folder
    except DriverError as error:
        tools.runner.log.info(
            f"no modules are built for kernels that come next: {error.message}", code=error.code.value
        )
        return None
    if not outlives_container(tools.paths, tools.config, folder):
        tools.runner.log.warning(
            f"nothing is mounted at the store {folder}, {GOES}, as do modules built there for kernels that come next: "
            f"mount a folder of the host at {tools.config.store_dir.parent}, and they stay"
        )
    return folder
