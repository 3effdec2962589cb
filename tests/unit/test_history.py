"""What starts took: bounded, read whatever lies there, and summed up by where the modules came from."""

import json
import re
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from driverctr import config as settings
from driverctr import history, historyverb, lifecycle
from driverctr.errors import Code, DriverError, Stopped
from driverctr.history import Outcome, Start
from driverctr.parser import make_parser
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.status import Phase
from driverctr.steps import Tools
from tests.unit.fake_life import make_life

PAGE = Path(__file__).parents[2] / "docs/life.md"

READY = Start(
    started=1796000400.0,
    seconds=30.0,
    outcome=Outcome.READY,
    driver_version="535.309.01",
    module_type="open",
    kernel_release="6.1.0-56-amd64",
    modules_from="build",
    steps={"modules": 25.0, "load": 5.0},
)


def test_what_is_written_is_read_and_the_oldest_go(tmp_path: Path) -> None:
    for number in range(history.MOST_LINES + 5):
        history.record(tmp_path / "store", replace(READY, started=float(number)))
    found = history.read(tmp_path / "store")
    assert [start.started for start in found] == [float(n) for n in range(5, history.MOST_LINES + 5)]
    assert found[-1] == replace(READY, started=history.MOST_LINES + 4.0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "7",
        json.dumps({"started": 1}),
        json.dumps({**READY.as_dict(), "seconds": "30"}),
        json.dumps({**READY.as_dict(), "outcome": "maybe"}),
        json.dumps({**READY.as_dict(), "steps": {"load": None}}),
        json.dumps({**READY.as_dict(), "steps": []}),
        json.dumps({**READY.as_dict(), "attempts": True}),
        json.dumps({**READY.as_dict(), "started": 1e300}),
        json.dumps({**READY.as_dict(), "seconds": float("nan")}),
        json.dumps({**READY.as_dict(), "steps": {"load": 10**400}}),
        "[" * 100_000,
    ],
)
def test_a_damaged_line_is_passed_over(tmp_path: Path, line: str) -> None:
    good = json.dumps(READY.as_dict())
    (tmp_path / history.FILE).write_text(f"{good}\n{line}\n{good}\n")
    assert history.read(tmp_path) == (READY, READY)


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert history.read(tmp_path) == ()


def test_medians_are_of_starts_like_this_one() -> None:
    starts = [
        READY,
        replace(READY, seconds=40.0, steps={"modules": 33.0, "load": 7.0}),
        replace(READY, seconds=50.0, steps={"modules": 44.0, "load": 6.0}),
        replace(READY, seconds=2.0, modules_from="store", steps={"modules": 1.0, "load": 1.0}),
        replace(READY, seconds=999.0, attempts=2),
        replace(READY, seconds=999.0, outcome=Outcome.FAILED),
    ]
    assert history.medians(starts, "build") == {"modules": 33.0, "load": 6.0, "total": 40.0}
    assert history.medians(starts, "store") == {"modules": 1.0, "load": 1.0, "total": 2.0}
    assert history.medians([]) == {}


@pytest.mark.parametrize(("share", "value"), [(50, 5.0), (95, 10.0), (1, 1.0), (100, 10.0)])
def test_percentiles_are_by_nearest_rank(share: int, value: float) -> None:
    assert history.percentile([float(n) for n in range(10, 0, -1)], share) == value
    assert history.percentile([7.0], share) == 7.0


def run_verb(paths: Paths, *words: str) -> int:
    arguments: Namespace = make_parser().parse_args(["history", *words])
    tools = cast(Tools, SimpleNamespace(paths=paths, config=settings.load({})))
    return historyverb.show(tools, arguments)


def test_the_verb_prints_one_line_a_start_and_percentiles(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    place = paths.root / "var/lib/driverctr/store"
    place.parent.mkdir(parents=True)
    assert run_verb(paths) == 0
    assert capsys.readouterr().out == "No start is on record yet.\n"
    history.record(place, READY)
    history.record(place, replace(READY, outcome=Outcome.FAILED, code="in-use", step="unload", modules_from=""))
    assert run_verb(paths) == 0
    lines = capsys.readouterr().out.splitlines()
    words = "2026-11-30 01:00:00 30.0 ready 1 build 535.309.01 open 6.1.0-56-amd64"
    assert lines[1].split() == words.split()
    assert "failed (in-use) in unload" in lines[2]
    assert lines[-3].split() == ["modules", "25.00", "25.00"] and lines[-1].split() == ["total", "30.00", "30.00"]
    assert run_verb(paths, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1 and [start["outcome"] for start in document["starts"]] == ["ready", "failed"]
    assert document["percentiles"] == {
        "build": {
            "modules": {"p50": 25.0, "p95": 25.0},
            "load": {"p50": 5.0, "p95": 5.0},
            "total": {"p50": 30.0, "p95": 30.0},
        }
    }


def test_only_the_last_starts_are_printed_unless_all_are_asked(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    place = paths.root / "var/lib/driverctr/store"
    place.parent.mkdir(parents=True)
    for number in range(30):
        history.record(place, replace(READY, started=float(number)))
    run_verb(paths)
    few = capsys.readouterr().out
    run_verb(paths, "--all")
    assert few.count(" ready ") == historyverb.SHOWN and capsys.readouterr().out.count(" ready ") == 30


def a_start(paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, lifecycle.Start]:
    """Where the history of a node is, and a start that becomes ready."""
    place = paths.root / "var/lib/driverctr/store"
    place.mkdir(parents=True)
    return place, make_life(paths, runner, monkeypatch).start


@pytest.mark.parametrize("set_by", [-86400.0, 86400.0])
def test_what_a_start_takes_is_told_by_the_clock_that_nobody_sets(
    paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch, set_by: float
) -> None:
    place, start = a_start(paths, runner, monkeypatch)
    now = time.time() + set_by
    monkeypatch.setattr(time, "time", lambda: now)
    with pytest.raises(Stopped):
        start.run()
    (told,) = history.read(place)
    assert told.outcome is Outcome.READY and 0 <= told.seconds < 60


def test_a_wait_for_a_gpu_is_no_part_of_what_a_start_takes(
    paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, start = a_start(paths, runner, monkeypatch)
    start.tell(phase=Phase.WAITING_FOR_GPU)
    start.chronicle.began -= 86400
    start.tell(phase=Phase.STARTING)
    with pytest.raises(Stopped):
        start.run()
    assert [told.seconds < 60 for told in history.read(place)] == [True]


def test_without_a_store_it_is_said_where_the_history_would_be(paths: Paths) -> None:
    with pytest.raises(DriverError, match="no history") as refused:
        run_verb(paths)
    assert refused.value.code is Code.NO_MODULES and "/var/lib/driverctr" in refused.value.remedy


def test_each_field_for_programs_is_explained(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    place = paths.root / "var/lib/driverctr/store"
    place.parent.mkdir(parents=True)
    history.record(place, READY)
    assert run_verb(paths, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    rows = set(re.findall(r"^\| `([a-z_.\[\]]+)`", PAGE.read_text().partition("## For programs")[2], re.MULTILINE))
    assert rows == set(told) | {f"starts[].{name}" for name in told["starts"][0]}
