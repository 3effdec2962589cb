"""The remote folder in a start: asked where nothing nearer has the modules, and never what a start depends on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import ModuleSet, Source, Wish
from driverctr.modules.drafts import Draft
from driverctr.modules.ondisk import OnDisk
from driverctr.modules.store import Store
from driverctr.modules.supply import Supply
from driverctr.modules.web import JOIN_LIMIT
from driverctr.paths import Paths
from driverctr.plan import PlannedStep, make
from driverctr.steps import Gained, Tools
from driverctr.steps import modules as step
from driverctr.steps.modules import Modules
from driverctr.survey import Facts, Observation
from tests.unit import remote_server
from tests.unit.fake_life import Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import facts
from tests.unit.remote_entries import KEY, QUICK, Pushed, make_set, node
from tests.unit.remote_entries import pushed as pushed
from tests.unit.remote_entries import server as server
from tests.unit.remote_server import Behaviour, Server, answer

NAMES = ("nvidia", "nvidia-uvm")
SLACK = 2.0
"""Seconds that a busy machine may add."""


@pytest.fixture
def store(paths: Paths, log: Log) -> Store:
    return Store.open(paths.root / "store", log)


@pytest.fixture
def tools(life: Life, paths: Paths, server: Server, pushed: Pushed) -> Tools:
    (paths.root / "var/tmp").mkdir(parents=True)
    environment = {
        "REMOTE_URL": server.url,
        "REMOTE_PUBLIC_KEY": pushed.public,
        "MODULES_DIR": str(paths.root / "modules"),
    }
    return replace(life.start.tools, config=settings.load(environment))


def known(store: Store | None, *seen: Observation) -> Facts:
    return facts(supply=Supply(key=KEY, store=store), wish=KEY.wish, to_load=NAMES, observations=seen)


def planned(tools: Tools, found: Facts) -> PlannedStep:
    return make(tools.config, found).steps[1]


def test_what_is_fetched_lies_in_the_store_then(tools: Tools, store: Store) -> None:
    found = known(store)
    assert planned(tools, found).alternative == Source.REMOTE
    gained = Modules().apply(tools, planned(tools, found), found, Gained()).gained
    assert gained.build is not None and gained.build.key == KEY
    assert store.find(KEY).module_set == gained.build.module_set
    assert store.find(KEY).provenance["remote"] == tools.config.remote_url
    assert not list((tools.paths.root / "var/tmp").iterdir())


def test_without_a_store_it_lies_where_builds_do(tools: Tools) -> None:
    found = known(None)
    gained = Modules().apply(tools, planned(tools, found), found, Gained()).gained
    assert gained.build is not None
    assert OnDisk(tools.config.modules_dir).find(KEY.wish) == gained.build.module_set


def test_it_is_asked_only_where_it_is_set_with_a_key_and_new_modules_may_be_had(tools: Tools) -> None:
    found = known(None, Observation("modules", Source.ON_DISK, DriverError(Code.NO_MODULES, "nothing")))

    def reason(**changes: str) -> str:
        return make(replace(tools.config, **changes), found).why_not("modules", Source.REMOTE)  # type: ignore[arg-type]  # texts, by name

    assert "REMOTE_URL is not set" in reason(remote_url="")
    assert "REMOTE_PUBLIC_KEY is not set" in reason(remote_public_key="")
    assert "fetches nothing" in make(tools.config, found, build_allowed=False).why_not("modules", Source.REMOTE)


@pytest.mark.parametrize("behaviour", [remote_server.stall, remote_server.truncate, remote_server.html, answer(500)])
def test_where_the_server_fails_a_node_builds_after_a_bounded_time(
    tools: Tools,
    store: Store,
    server: Server,
    pushed: Pushed,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    behaviour: Behaviour,
) -> None:
    class Builder:
        @contextmanager
        def draft(self, wish: Wish) -> Iterator[Draft]:
            yield Draft(self.made, {"compiler": "gcc-12"})

        made: ModuleSet = make_set(tmp_path / "built-here")

    server.behaviour = behaviour
    quick = node(server.url, pushed.public, log, QUICK)
    monkeypatch.setattr(step, "fetched", lambda tools, wanted: quick.draft(wanted, tmp_path))
    monkeypatch.setattr(step, "builder", lambda *_: Builder())
    began = time.monotonic()
    with pytest.raises(DriverError) as refused:
        Modules().apply(tools, planned(tools, known(store)), known(store), Gained())
    assert refused.value.code is Code.REMOTE_FAILED
    assert time.monotonic() - began < QUICK.documents + JOIN_LIMIT + SLACK
    found = known(store, Observation("modules", Source.REMOTE, refused.value))
    second = planned(tools, found)
    assert second.alternative == Source.BUILD
    assert refused.value.message in [other.reason for other in second.set_aside]
    Modules().apply(tools, second, found, Gained())
    assert store.find(KEY).provenance["compiler"] == "gcc-12"
