"""NO_GPU=wait: asleep until the kernel tells of a GPU, then everything is looked at anew."""

import gc
import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from driverctr import bringup, doctorverb, gpuwait, markers, status, survey, verbs
from driverctr import config as settings
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts import events, kernel
from driverctr.facts.privilege import Privilege
from driverctr.lifecycle import Start
from driverctr.modules import Source, Wish
from driverctr.modules.supply import Search
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Signals
from driverctr.steps import Tools
from driverctr.survey import Facts
from driverctr.userspace.image import Image
from driverctr.versions import DriverVersion
from tests.unit.conftest import make_tree
from tests.unit.good_node import facts, node

GPU = {"vendor": "0x10de", "class": "0x030200", "device": "0x20b0"}


@dataclass
class Kernel:
    """Tells of something `silences` times before the GPU comes; each read is counted."""

    paths: Paths
    others: int
    reads: int = 0
    pipe: tuple[int, int] = field(default_factory=os.pipe)

    def fileno(self) -> int:
        return self.pipe[0]

    def read(self) -> tuple[events.Event, ...]:
        self.reads += 1
        if self.reads > self.others:
            make_tree(self.paths.root, {f"sys/bus/pci/devices/0000:01:00.0/{name}": text for name, text in GPU.items()})
        return ()

    @contextmanager
    def listening(self) -> Iterator["Kernel"]:
        os.write(self.pipe[1], b"event")
        yield self


def test_each_event_is_looked_into_until_a_gpu_is_there(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(paths, others=2)
    monkeypatch.setattr(events, "listening", kernel.listening)
    gpuwait.wait_for_gpu(paths, Signals())
    assert kernel.reads == 3


def test_a_signal_ends_the_wait(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(paths, others=0)
    monkeypatch.setattr(events, "listening", kernel.listening)
    signals = Signals()
    signals.arrived = signal.SIGTERM
    with pytest.raises(Stopped):
        gpuwait.wait_for_gpu(paths, signals)
    assert kernel.reads == 0


def tools(paths: Paths, runner: Runner, **environment: str) -> Tools:
    return verbs.make_tools(settings.load(environment), runner.log, paths)


@dataclass
class Looks:
    """What each look at the node finds."""

    found: list[Facts]
    phases: list[status.Phase] = field(default_factory=list)

    def survey(self, *_: object) -> Facts:
        return self.found.pop(0)


@pytest.fixture
def start(paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(bringup.BringUp, "apply", lambda self, planned, known: None)
    return Start(tools(paths, runner, NO_GPU="wait"))


def test_a_gpu_that_comes_is_planned_for_anew(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    come = facts(wish=Wish("6.1.0-56-amd64", "535.309.01", "open"))
    looks = Looks([facts(gpus=()), come])
    marker = start.tools.paths.run / "validations/.driver-ctr-ready"
    daemons = start.tools.paths.run / markers.DAEMONS
    gc.disable()
    make_tree(start.tools.paths.root, {str(marker.relative_to(start.tools.paths.root)): "stale"})

    def wait(paths: Paths, signals: Signals) -> None:
        looks.phases.append(start.told.phase)
        assert not marker.exists() and daemons.read_text() == "NotReady\n" and gc.isenabled()

    monkeypatch.setattr(survey, "survey", looks.survey)
    monkeypatch.setattr(gpuwait, "wait_for_gpu", wait)
    try:
        start.way_up.run()
    finally:
        gc.enable()
    assert looks.phases == [status.Phase.WAITING_FOR_GPU] and not looks.found
    assert start.told.module_type == "open" and start.told.phase is status.Phase.STARTING


def test_what_else_is_refused_is_refused_before_the_wait(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    known = replace(node(privilege=Privilege(("SYS_MODULE",), False)), gpus=())
    monkeypatch.setattr(survey, "survey", Looks([known]).survey)
    with pytest.raises(DriverError) as refused:
        start.way_up.run()
    assert refused.value.code is Code.NO_PRIVILEGE


def test_warnings_of_the_plan_are_logged(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    good = facts()
    taken = replace(good.gpus[0], address="0002:01:00.0", driver="vfio-pci")
    monkeypatch.setattr(survey, "survey", Looks([replace(good, gpus=(*good.gpus, taken))]).survey)
    start.way_up.run()
    assert "0002:01:00.0 (10de:20b0) is taken by vfio-pci" in start.tools.runner.log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO


@pytest.mark.parametrize(
    ("found", "exit_status"), [(facts(), 0), (facts(gpus=()), 17), (node(privilege=Privilege(("MKNOD",), False)), 5)]
)
def test_the_doctors_exit_status_is_that_of_the_first_refusal(
    paths: Paths,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: Facts,
    exit_status: int,
) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: found)
    asked = Namespace(json=False, bundle=None)
    assert doctorverb.run(tools(paths, runner), asked) == exit_status
    assert "privilege" in capsys.readouterr().out


def test_an_image_without_the_source_wanted_is_known_before_anything_is_touched(tmp_path: Path) -> None:
    bare = Image(DriverVersion("535.309.01"), (), "debian", "x86_64")
    config = settings.load({"MODULES_DIR": str(tmp_path)})
    running = kernel.read(tmp_path, "6.1")
    supply = Search(Paths(tmp_path), config, bare, Wish("6.1", "535.309.01", "open"), running, {}, ("nvidia",)).look()
    assert supply.key is None and not supply.builds
    assert "no open module source" in supply.refusals[Source.BUILD].message
