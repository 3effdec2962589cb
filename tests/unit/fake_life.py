"""A start with fake steps, for what comes before, between and after them."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from driverctr import bringup, stopping, survey
from driverctr import config as settings
from driverctr.errors import Stopped
from driverctr.kmod import Kmod
from driverctr.lifecycle import Start
from driverctr.modules import Source
from driverctr.modules.loaded import Build
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, StepName
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.steps import Gained, Outcome, Tools
from driverctr.survey import Facts
from driverctr.syslog import Syslog
from tests.unit.good_node import ON_DISK, facts

ALWAYS = tuple(name for name in StepName if name is not StepName.USERSPACE)
"""The steps of a start whose own version serves."""

FORWARD = ["withdraw", "modules:on-disk", *(name.value for name in ALWAYS[2:])]


@dataclass
class FakeStep:
    """A step that logs, and fails or is stopped as told."""

    name: StepName
    told: list[str]
    interruptible: bool = False
    failures: dict[str, BaseException] = field(default_factory=dict)
    once: BaseException | None = None

    def apply(self, tools: Tools, planned: PlannedStep, known: Facts, gained: Gained) -> Outcome:
        self.told.append(self.name.value + (f":{planned.alternative}" if planned.alternative else ""))
        failure, self.once = self.once or self.failures.get(planned.alternative), None
        if failure:
            raise failure
        if self.name is StepName.MODULES:
            source = Source(planned.alternative)
            kept = known.supply.kept.get(source)
            gained = replace(gained, source=source, kept=kept, build=gained.build or Build(ON_DISK))
        if self.name is StepName.UNLOAD and known.stack and not gained.kept:
            gained = replace(gained, unloaded=tuple(known.stack))
        return Outcome({"by": self.name.value}, gained)

    def undo(self, tools: Tools, data: Mapping[str, Any]) -> None:
        assert data == {"by": self.name.value}
        self.told.append(f"undo {self.name.value}")
        if failure := self.failures.get("undo"):
            raise failure


@dataclass
class Life:
    """A start with fake steps."""

    start: Start
    steps: dict[StepName, FakeStep]
    told: list[str]

    @property
    def log(self) -> str:
        return str(self.start.tools.runner.log.stream.getvalue())  # type: ignore[attr-defined]  # a StringIO


def make_life(
    paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str] = {}
) -> Life:
    """A start with these settings; a signal ends its wait at once."""
    config = settings.load(environment)
    told: list[str] = []
    steps = {name: FakeStep(name, told) for name in StepName}
    monkeypatch.setattr(bringup, "STEPS", tuple(steps.values()))
    monkeypatch.setattr(survey, "survey", lambda *_: facts())
    monkeypatch.setattr(stopping, "check_free", lambda tools: None)
    signals = Signals()
    budget = Budget(signals, config.stop_timeout)
    tools = Tools(paths, config, runner, Kmod(), signals, Syslog(Path("/nowhere"), paths.own_run), budget)
    start = Start(tools)
    monkeypatch.setattr(Start, "wait", lambda self: (_ for _ in ()).throw(Stopped(signal.SIGTERM)))
    return Life(start, steps, told)


@pytest.fixture
def life(paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Life:
    return make_life(paths, runner, monkeypatch)
