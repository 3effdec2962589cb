"""The look at the driver while we wait: seen, said, mended where safe; the markers follow (DESIGN section 4)."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driverctr import features, markers, verify
from driverctr.errors import DriverError, code_of
from driverctr.facts import kernellog
from driverctr.facts.kernellog import Mark
from driverctr.features import NO_FEATURES, Features
from driverctr.mend import Mender
from driverctr.pending import Pending
from driverctr.status import Phase
from driverctr.steps import Tools
from driverctr.steps.unload import SETTLE_PAUSE, Patience
from driverctr.verify import Expected, Finding

LOOK_EVERY = 60.0
"""Seconds between two looks at most (DESIGN section 2, promise 2)."""


@dataclass
class Health:
    """What is told of a driver that was ready, by `tell(field=value, ...)`, and by the markers.

    The markers are ours to withdraw and to publish again; where others removed one (the operator's preStop does) it
    stays away: nobody but us knows that the driver failed, but they may know that it is going to end.
    nvidia-smi is not asked: it would wake every GPU once a minute. `lasting` are reasons of the start that stay,
    `substitutes` what the driver root shows in place of our own, `features` the node's labels, `pending` a reload that
    ends the wait once nobody uses the driver, and `blocked_by` who does, `said` what the kernel said of what fails now.
    """

    tools: Tools
    expected: Expected
    tell: Callable[..., None]
    lasting: tuple[str, ...] = ()
    pending: Pending | None = None
    substitutes: Mapping[str, Path] = field(default_factory=dict)
    features: Features = NO_FEATURES
    waits_for: str = ""
    blocked_by: tuple[Mapping[str, Any], ...] = ()
    found: Sequence[Finding] = ()
    said: str = ""
    daemons_live: bool = True
    restarts: int = 0
    withdrawn: bool = False
    mender: Mender = field(init=False)
    patience: Patience = field(init=False)
    heard: Mark = field(init=False)

    def __post_init__(self) -> None:
        """The mender loads in the order in which the modules were loaded first; `heard` marks the kernel log.

        What the kernel says from the beginning of one look on belongs to what the next one finds too.
        """
        loaded = tuple(self.expected.build_ids)
        self.mender = Mender(self.tools, loaded, self.expected.firmware_path, self.substitutes)
        self.patience = Patience(self.tools)
        self.heard = Mark(self.tools.paths)

    def look(self) -> float:
        """Look, mend, look again; returns the seconds until the next look at most.

        While somebody else loads or unloads the driver, an administrator's rmmod, nothing is mended. Raises ReloadDue,
        and DriverError (stuck) where a load or unload, whoever's, hangs in the kernel.
        The kernel's trees change while they are read: what fails of it is no finding, the next look tells.
        """
        try:
            return self._look()
        except OSError as error:
            self.tools.runner.log.warning(
                f"this look at the driver failed, the next will tell: {error}", code=code_of(error)
            )
            return LOOK_EVERY

    def _look(self) -> float:
        with contextlib.ExitStack() as unfinished:
            begun = unfinished.enter_context(Mark(self.tools.paths))
            self.waits_for, self.blocked_by = self.pending.look() if self.pending else ("", ())
            self._report(self._ask())
            unsettled = self.patience.look()
            if not unsettled and any(finding.gone for finding in self.found) and self.mender.is_due():
                with self.tools.signals.held():
                    self.mender.mend(self.found)
                self._report(self._ask())
            unfinished.pop_all()
        self.heard.close()
        self.heard = begun
        if unsettled:
            return SETTLE_PAUSE
        if not any(finding.gone for finding in self.found):
            self.mender.rest()
            return LOOK_EVERY
        return min(LOOK_EVERY, max(0.0, self.mender.due - time.monotonic()))

    def close(self) -> None:
        """Nobody looks any more."""
        self.heard.close()

    def on_daemons(self, all_live: bool) -> None:
        """A daemon's end flips only the daemons' marker; the kernel still has the driver."""
        self.daemons_live = all_live
        self.restarts += 1 if all_live else 0
        self._mark(lambda: markers.write_daemons_status(self.tools.paths.run, ready=all_live))
        self._tell()

    def _ask(self) -> list[Finding]:
        return verify.look(self.tools.paths, self.expected, self.tools.config.verify_depth)

    def _report(self, found: Sequence[Finding]) -> None:
        """Say what is new and what is over, flip the marker, tell the status."""
        former, self.found = self.found, found
        self._say([finding for finding in found if finding not in former])
        if former and not found:
            self.tools.runner.log.info("the driver is as wanted again")
        self._flip()
        self._label()
        self._tell()

    def _label(self) -> None:
        """The node is labelled while the driver serves; what others removed comes again, it claims no more than is."""
        if self._serves():
            self.features.refresh(self.tools.runner.log)
        else:
            features.withdraw(self.features.file, self.tools.runner.log)

    def _say(self, new: Sequence[Finding]) -> None:
        log = self.tools.runner.log
        for finding in new:
            if finding.serves:
                log.warning(f"degraded: {finding.text}", code=finding.code.value)
            else:
                log.error(finding.text, code=finding.code.value)
        if any(not finding.serves for finding in new):
            self.said = kernellog.last(self.heard.read().of_nvidia())
            if self.said:
                log.error(f"the kernel log has: {self.said}")

    def _flip(self) -> None:
        """Withdraw the container's marker when the driver no longer serves, publish it again when it does."""
        run, config = self.tools.paths.run, self.tools.config
        if not self._serves() and not self.withdrawn and (run / markers.CONTAINER).exists():
            self.withdrawn = self._mark(lambda: markers.withdraw_container(run))
        elif self._serves() and self.withdrawn:
            ready = self._mark(
                lambda: markers.write_ready(run, gds=config.gds, gdrcopy=config.gdrcopy, rdma=config.rdma)
            )
            self.withdrawn = not ready

    def _mark(self, act: Callable[[], None]) -> bool:
        """A folder that cannot be written is said, and no reason to leave the driver alone."""
        try:
            act()
        except DriverError as error:
            self.tools.runner.log.error(str(error), code=error.code.value)
            return False
        return True

    def _serves(self) -> bool:
        return all(finding.serves for finding in self.found)

    def _tell(self) -> None:
        degraded = [finding.text for finding in self.found if finding.serves]
        if not self.daemons_live:
            degraded.append("a daemon is down and will be started again")
        self.tell(
            phase=Phase.READY if self._serves() else Phase.NOT_READY,
            degraded=(*self.lasting, *filter(None, (self.waits_for,)), *degraded),
            problems=tuple(
                {"code": f.code.value, "message": f.text, "kernel_log": self.said} for f in self.found if not f.serves
            ),
            daemon_restarts=self.restarts,
            pending=self.waits_for,
            in_use=self.blocked_by,
            last_check=time.time(),
        )
