"""While a driver serves, and the moment in which it no longer does."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from driverctr import hints, keeper, markers, prebuild, serving
from driverctr.errors import Stopped
from driverctr.health import Health
from driverctr.modules import ModuleSet
from driverctr.modules.loaded import Build, Loaded
from driverctr.paths import Paths
from driverctr.pending import Pending, ReloadDue
from driverctr.steps import Gained
from driverctr.supervise import Supervisor
from tests.unit.conftest import make_tree
from tests.unit.fake_life import Life
from tests.unit.fake_life import life as life

SERVES = Gained(build=Build(ModuleSet(Path("/set"), "6.1.0", "", "535.309.01", "open", {})))


def test_a_signal_while_the_module_tree_is_completed_waits_for_its_end(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, told = life.start.tools, []

    def furnish(*_: object) -> None:
        tools.signals._on_stop(signal.SIGTERM, None)
        told.append("whole")

    monkeypatch.setattr(serving, "furnish", furnish)
    with pytest.raises(Stopped):
        serving.complete(tools, replace(SERVES, kept=Loaded(Build(SERVES.module_set))))
    assert told == ["whole"]


@pytest.mark.parametrize(
    ("end", "ready"),
    [(Stopped(signal.SIGTERM), False), (ZeroDivisionError(), False), (ReloadDue(), True)],
    ids=("signal", "bug", "reload"),
)
@pytest.mark.parametrize("moment", ["in the wait", "while it begins"])
def test_nobody_believes_the_driver_ready_while_what_runs_beside_it_ends(
    life: Life, paths: Paths, end: BaseException, ready: bool, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, seen = life.start.tools, []
    markers.write_ready(paths.run, gds=False, gdrcopy=False, rdma=False)
    markers.write_digest(paths.run, "42")

    @contextmanager
    def beside(*_: object) -> Iterator[SimpleNamespace]:
        try:
            yield SimpleNamespace(after=lambda look: look, children=set)
        finally:
            seen.append(((paths.run / markers.CONTAINER).exists(), not tools.budget._undoing))

    @contextmanager
    def listening(*_: object) -> Iterator[list[hints.Hint]]:
        if moment == "while it begins":
            raise end
        yield []

    def wait(*_: object) -> None:
        raise end

    monkeypatch.setattr(keeper, "keeping", beside)
    monkeypatch.setattr(prebuild, "serving", beside)
    monkeypatch.setattr(hints, "listening", listening)
    monkeypatch.setattr(Supervisor, "wait", wait)
    if ready:
        serving.serve(tools, SERVES, None, (), lambda **_: None)
    else:
        with pytest.raises(type(end)):
            serving.serve(tools, SERVES, None, (), lambda **_: None)
    assert seen == [(ready, ready)] * 2, "the marker, and whether the time of the stop does not run yet"
    assert (paths.run / markers.DIGEST).exists()


def test_reload_after_reload_leaves_no_descriptor_open(
    life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(paths.root, {"dev/kmsg": ""})
    kept: list[Health] = []
    begin = Health.__post_init__

    def begun(health: Health) -> None:
        begin(health)
        kept.append(health)  # as a reference to it from anywhere would

    def due(pending: Pending) -> NoReturn:
        raise ReloadDue

    @contextmanager
    def beside(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(after=lambda look: look, children=set)

    @contextmanager
    def listening(*_: object) -> Iterator[list[hints.Hint]]:
        yield []

    monkeypatch.setattr(Health, "__post_init__", begun)
    monkeypatch.setattr(Pending, "look", due)
    monkeypatch.setattr(serving, "complete", lambda *_: None)
    monkeypatch.setattr(keeper, "keeping", beside)
    monkeypatch.setattr(prebuild, "serving", beside)
    monkeypatch.setattr(hints, "listening", listening)
    monkeypatch.setattr(Supervisor, "wait", lambda supervisor, *_: supervisor.look())
    changed = replace(SERVES, kept=Loaded(Build(SERVES.module_set), stale=("NVreg_A",)))
    before = list(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        serving.serve(life.start.tools, changed, None, (), lambda **_: None)
    assert len(kept) == 5 and len(list(Path("/proc/self/fd").iterdir())) == len(before)
