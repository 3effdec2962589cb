"""Put back what went away behind our back, where that can do no harm; nothing that is there is ever touched."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from driverctr import daemons, devices, firmware, selinux
from driverctr.errors import Code, DriverError
from driverctr.facts import gpus, modules
from driverctr.mounts import driverroot
from driverctr.steps import Tools
from driverctr.verify import Finding, Part

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
"""Seconds: what could not be mended is tried again after FIRST_PAUSE, then twice as long each time."""


@dataclass
class Mender:
    """Mends, and backs off where that fails: a load that fails makes events, which must not make the next load."""

    tools: Tools
    modules: Sequence[str]
    firmware_path: str = ""
    substitutes: Mapping[str, Path] = field(default_factory=dict)
    pause: float = FIRST_PAUSE
    due: float = 0.0

    def is_due(self) -> bool:
        """Whether the pause after the last attempt is over."""
        return time.monotonic() >= self.due

    def rest(self) -> None:
        """All is well: the next attempt may come at once."""
        self.pause, self.due = FIRST_PAUSE, 0.0

    def mend(self, found: Sequence[Finding]) -> None:
        """Try each part once, the root before what reads firmware through it, the nodes after what they stand for.

        Raises DriverError (stuck) where a load hangs.
        """
        self.due = time.monotonic() + self.pause
        self.pause = min(LONGEST_PAUSE, self.pause * 2)
        acts: Mapping[Part, Callable[[Sequence[str]], None]] = {
            Part.ROOT: self._export,
            Part.FIRMWARE: self._restore_path,
            Part.MODULE: self._load,
            Part.NODE: self._make_nodes,
        }
        for part, act in acts.items():
            subjects = [finding.subject for finding in found if finding.part is part and finding.gone]
            if subjects:
                self._try(act, subjects)

    def _try(self, act: Callable[[Sequence[str]], None], subjects: Sequence[str]) -> None:
        log = self.tools.runner.log
        try:
            act(subjects)
        except DriverError as error:
            if error.code is Code.STUCK:
                raise
            log.error(f"not mended: {error}", code=error.code.value)

    def _export(self, where: Sequence[str]) -> None:
        driverroot.export(self.tools.paths, log=self.tools.runner.log, substitutes=self.substitutes)

    def _restore_path(self, parameter: Sequence[str]) -> None:
        firmware.restore_path(self.tools.paths, self.firmware_path)

    def _load(self, names: Sequence[str]) -> None:
        """Load what is gone; after the core, which takes its state with it, daemons begin anew (they are watched)."""
        if modules.CORE in names and not self._have_gpu():
            raise DriverError(Code.NO_GPU, "no GPU is free for the driver", "Give one back to it")
        for name in self.modules:
            if name in names:
                self.tools.kmod.load(name, self.tools.config.load_timeout)
                self.tools.runner.log.info(f"{name} was loaded again")
        self._make_nodes(())
        if modules.CORE in names:
            for daemon in daemons.DAEMONS:
                running = daemons.find(self.tools.paths, daemon)
                if running is not None:
                    self.tools.stop_daemon(running)

    def _have_gpu(self) -> bool:
        return any(not gpu.taken_by for gpu in gpus.read(self.tools.paths))

    def _make_nodes(self, names: Sequence[str]) -> None:
        made = devices.create(self.tools.paths, devices.wanted(self.tools.paths))
        if made:
            self.tools.runner.log.info(f"made again: {', '.join(f'/dev/{name}' for name in made)}")
            selinux.label_devices(self.tools.paths, log=self.tools.runner.log)
