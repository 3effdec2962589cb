"""What Prometheus is told: every metric of the table, of every status there is; served, probed, kept in a file."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from driverctr import bringup, lifecycle, monitoring, pidlock, verify
from driverctr import config as settings
from driverctr.errors import Code, DriverError, Stopped
from driverctr.kmod import Kmod
from driverctr.metrics import extras, families, textfile
from driverctr.metrics.families import Counts, Extras, Registry, Truth
from driverctr.metrics.monitor import EXTRAS_LAST, Monitor
from driverctr.metrics.table import METRICS, Kind
from driverctr.monitoring import Watchers
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.status import Phase, Status, StepTime
from driverctr.steps import Tools
from driverctr.syslog import Syslog
from driverctr.verify import Expected, Finding, Part
from harness.pages.metrics import markdown
from tests.unit.conftest import make_tree

REPOSITORY = Path(__file__).parents[2]
SOURCE = str(REPOSITORY / "src")
PYTHON = Path(sys.executable).name
FULL = Status(
    Phase.READY,
    100.0,
    1,
    started=90.0,
    driver_version="535.309.01",
    module_type="proprietary",
    kernel_release="6.1.0-56-amd64",
    modules_from="store",
    steps=(StepTime("modules", 0.5, "done"), StepTime("load", 1.5, "done")),
    daemon_restarts=2,
    failure={"code": "in-use", "message": "secret", "remedy": ""},
    degraded=("a daemon is down",),
    last_check=120.0,
    attempt=3,
    next_try=130.0,
    pending="parameters",
    rollback="rolled back",
    store="hit",
    in_use=({"module": "nvidia", "refcnt": 3, "pids": [42, 43], "unseen": 0, "sentence": "nvidia has refcnt 3"},),
    gpus_answering={"0000:01:00.0": True, "0000:02:00.0": False},
)
"""Of which each field tells something."""
LOST = Finding(Part.GPU, "0000:01:00.0", "GPU 0000:01:00.0 has vanished from the bus", code=Code.GPU_LOST)
BLANK = Finding(Part.FIRMWARE, "path", "the firmware search path is blank", serves=True)
EXPECTED = Expected("535.309.01", {"nvidia": "c0ffee"}, {}).as_dict()


def tools(paths: Paths, runner: Runner, **variables: str) -> Tools:
    made = Signals()
    config = settings.load(variables)
    return Tools(paths, config, runner, Kmod(), made, Syslog(paths.root / "log", paths.root), Budget(made, 5))


def samples(text: str) -> dict[str, float]:
    """Each sample by its name and labels."""
    return {
        sample.name + "".join(f"{{{value}}}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def text_of(told: dict[str, Any], truth: Truth | None = None, counts: Counts | None = None, more: Any = None) -> str:
    made = families.make(told, truth or Truth(), counts or Counts(), more or Extras(), 2000)
    return generate_latest(Registry(tuple(made))).decode()


def of(*known: Any) -> dict[str, float]:
    return samples(text_of(*known))


def test_every_metric_of_the_table_is_told_of_a_status_that_has_everything_and_no_other() -> None:
    counts = Counts({"hit": 1}, {"in-use": 2}, 9.5)
    found = of(asdict(FULL), Truth(True, False, {"gpu-lost": 1}), counts, Extras(300, 2, {"6.2": True}))
    assert {name.partition("{")[0] for name in found} == {row.name for row in METRICS}
    assert found["driverctr_phase{ready}"] == 1 and found["driverctr_phase{failed}"] == 0
    assert found["driverctr_ready"] == 1 and found["driverctr_degraded"] == 1 and found["driverctr_attempt"] == 3
    assert found["driverctr_step_seconds{load}"] == 1.5 and found["driverctr_start_seconds"] == 9.5
    assert found["driverctr_holders{nvidia}"] == 2 and found["driverctr_holder_references{nvidia}"] == 3
    assert found["driverctr_store_lookups_total{hit}"] == 1 and found["driverctr_store_lookups_total{miss}"] == 0
    assert found["driverctr_gpu_answering{0000:02:00.0}"] == 0 and found["driverctr_daemon_restarts_total"] == 2
    assert found["driverctr_info{535.309.01}{6.1.0-56-amd64}{proprietary}{store}"] == 1
    assert found["driverctr_next_kernel_ready{6.2}"] == 1 and found["driverctr_failures_total{in-use}"] == 2


def test_what_is_not_known_has_no_value_and_a_plain_document_is_enough() -> None:
    found = of(asdict(Status(Phase.STARTING, 1.0, 1)))
    for name in ("start_seconds", "last_check_timestamp_seconds", "store_bytes", "next_try_timestamp_seconds"):
        assert f"driverctr_{name}" not in found
    assert not [name for name in found if name.startswith(("driverctr_failure", "driverctr_holder"))]
    assert found["driverctr_ready"] == 0 and found["driverctr_attempt"] == 1


def test_names_are_as_prometheus_wants_them_and_no_message_is_told() -> None:
    assert len({row.name for row in METRICS}) == len(METRICS)
    for row in METRICS:
        assert row.name.startswith("driverctr_") and row.name.endswith("_total") == (row.kind is Kind.COUNTER)
        assert row.name.endswith("_info") == (row.kind is Kind.INFO) and row.help.endswith(".")
    assert "secret" not in text_of(asdict(FULL))


def test_the_page_is_the_tables_and_tells_of_every_metric() -> None:
    page = (REPOSITORY / "docs/metrics.md").read_text()
    assert page == markdown(), "./dev docs"
    assert not [row.name for row in METRICS if f"| `{row.name}` | {row.kind.value} |" not in page]


@pytest.fixture
def monitor(paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """Of a process that holds the lock; what differs is put into `verify.look`'s place."""
    monkeypatch.setattr(pidlock, "is_held", lambda *_: True)
    monkeypatch.setattr(verify, "look", lambda *_: [])
    yield Monitor(tools(paths, runner))


def told_by(monitor: Monitor) -> dict[str, float]:
    return samples(generate_latest(monitor.collect()).decode())


def test_ready_is_what_the_kernel_says_at_this_moment(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor.tell(replace(FULL, expected=EXPECTED, degraded=()))
    assert told_by(monitor)["driverctr_ready"] == 1 and monitor.why_not_ready() == ""
    monkeypatch.setattr(verify, "look", lambda *_: [LOST, BLANK])
    found = told_by(monitor)
    assert found["driverctr_ready"] == 0 and found["driverctr_problems{gpu-lost}"] == 1
    assert found["driverctr_degraded"] == 1
    assert monitor.why_not_ready() == f"not-ready: {LOST.text}"
    monkeypatch.setattr(verify, "look", lambda *_: [])
    monkeypatch.setattr(pidlock, "is_held", lambda *_: False)
    assert told_by(monitor)["driverctr_ready"] == 0 and "not locked" in monitor.why_not_ready()


def test_a_tree_that_changes_while_it_is_read_is_read_again_and_then_not_ready(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor.tell(replace(FULL, expected=EXPECTED))
    looks: list[Any] = [OSError("gone"), []]

    def look(*_: object) -> list[Finding]:
        found = looks.pop(0)
        if isinstance(found, OSError):
            raise found
        return list(found)

    monkeypatch.setattr(verify, "look", look)
    assert monitor.why_not_ready() == ""
    looks[:] = [OSError("gone")] * 4
    assert "cannot be read" in monitor.why_not_ready() and told_by(monitor)["driverctr_ready"] == 0


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.READY, Phase.NOT_READY)])
def test_no_other_phase_is_ready_and_the_reason_has_no_message(monitor: Monitor, phase: Phase) -> None:
    monitor.tell(replace(FULL, phase=phase, expected=EXPECTED, step="load", since=time.time() - 5))
    assert told_by(monitor)["driverctr_ready"] == 0
    assert monitor.why_not_ready() == f"{phase}: in-use, at step load, for 5 s"


def test_a_process_is_alive_while_it_looks_at_the_driver_and_dead_where_the_kernel_hangs(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monitor.tell(replace(FULL, phase=Phase.STARTING))
    monkeypatch.setattr(time, "monotonic", lambda: now + 10 * monitor.longest_silence)
    assert monitor.why_not_alive() == "", "a build may take long, and has its own limits"
    monitor.tell(FULL)
    assert monitor.why_not_alive() == ""
    monkeypatch.setattr(time, "monotonic", lambda: now + 12 * monitor.longest_silence)
    assert "not looked at" in monitor.why_not_alive()
    monitor.tell(replace(FULL, phase=Phase.STUCK))
    assert "hangs" in monitor.why_not_alive()


def test_a_clock_that_was_set_back_makes_no_time_negative(monitor: Monitor) -> None:
    monitor.tell(Status(Phase.STARTING, 1000.0, 1))
    monitor.tell(Status(Phase.READY, 400.0, 1))
    assert monitor.counts.start_seconds == 0
    monitor.tell(Status(Phase.STOPPING, time.time() + 3600, 1))
    assert monitor.why_not_ready() == "stopping, for 0 s"


def test_the_way_to_ready_is_measured_with_retries_and_without_the_wait_for_a_gpu(monitor: Monitor) -> None:
    def at(phase: Phase, since: float) -> float | None:
        monitor.tell(Status(phase, since, 1))
        return monitor.counts.start_seconds

    assert at(Phase.STARTING, 100) is None and at(Phase.WAITING_FOR_GPU, 101) is None
    assert at(Phase.STARTING, 500) is None and at(Phase.READY, 512) == 12
    assert at(Phase.NOT_READY, 600) == 12 and at(Phase.READY, 700) == 12, "it did not start anew"
    assert at(Phase.STARTING, 800) == 12 and at(Phase.READY, 803) == 3, "a reload"
    for phase, since in ((Phase.STARTING, 900), (Phase.RETRYING, 905), (Phase.STARTING, 930)):
        at(phase, since)
    assert at(Phase.READY, 940) == 40


def test_failures_and_looks_into_the_store_are_counted_once_each(monitor: Monitor) -> None:
    first = {"code": "headers-missing", "message": "1"}
    for failure in ({}, first, first, {**first, "message": "2"}, {"code": "in-use", "message": ""}):
        monitor.tell(Status(Phase.STARTING, 1, 1, failure=failure))
    assert monitor.counts.failures == {"headers-missing": 2, "in-use": 1}
    for store, attempt in (("", 1), ("miss", 1), ("miss", 1), ("", 2), ("miss", 2), ("", 3), ("hit", 3)):
        monitor.tell(Status(Phase.STARTING, 1, 1, store=store, attempt=attempt))
    assert monitor.counts.lookups == {"miss": 2, "hit": 1}


def test_what_takes_many_files_is_read_when_old_or_when_the_status_tells_of_it(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []

    def read(tools: Tools, told: Any) -> Extras:
        reads.append(told)
        return Extras(len(reads))

    monkeypatch.setattr(extras, "read", read)
    monkeypatch.setattr(time, "monotonic", lambda: 20.0)  # seconds after the boot
    monitor.tell(FULL)
    monitor.refresh()
    monitor.refresh()
    assert len(reads) == 1 and told_by(monitor)["driverctr_store_bytes"] == 1
    monitor.tell(replace(FULL, next_kernels={"6.2": {"state": "building"}}))
    monitor.refresh()
    assert len(reads) == 2
    monitor.extras_at -= EXTRAS_LAST
    monitor.refresh()
    assert len(reads) == 3


def test_the_store_and_the_kernels_are_told_as_the_status_verb_does(paths: Paths, runner: Runner) -> None:
    assert extras.read(tools(paths, runner), {}) == Extras(None, None, {}), "no store, no kernels"
    make_tree(paths.root, {"var/lib/driverctr/store/entries": None, "var/lib/driverctr/store/stage": None})
    assert extras.read(tools(paths, runner), {}) == Extras(0, 0, {})


@pytest.fixture
def prom(paths: Paths) -> Path:
    (paths.root / "textfile").mkdir()
    return paths.root / "textfile/driverctr.prom"


def test_nobody_watches_unless_it_is_asked_for(paths: Paths, runner: Runner) -> None:
    with monitoring.watched(tools(paths, runner)) as watch:
        assert watch is monitoring.unwatched and watch(FULL) is FULL


@pytest.mark.allow_process(PYTHON)
def test_what_metrics_need_is_imported_only_where_they_are_switched_on() -> None:
    code = "import sys; from driverctr import verbs, lifecycle, serving, monitoring; " + (
        "print([name for name in sys.modules if name.startswith(('prometheus_client', 'driverctr.metrics', 'http.'))])"
    )
    said = subprocess.run([sys.executable, "-Bc", code], capture_output=True, text=True, env={"PYTHONPATH": SOURCE})
    assert said.stdout == "[]\n", said


def test_the_file_follows_the_status_and_goes_with_a_clean_stop(paths: Paths, runner: Runner, prom: Path) -> None:
    left = prom.with_name(f".{prom.name}.77-0123{'.partial'}")
    left.write_text("half")
    with monitoring.watched(tools(paths, runner, METRICS_TEXTFILE=str(prom))) as watch:
        assert not left.exists()
        watch(Status(Phase.STARTING, 1, 1))
        assert samples(prom.read_text())["driverctr_phase{starting}"] == 1
        watch(FULL)
        assert samples(prom.read_text())["driverctr_phase{ready}"] == 1 and monitoring.is_of_killed(prom)
        assert [path.name for path in prom.parent.iterdir()] == [prom.name] and prom.stat().st_mode & 0o777 == 0o644
        watch(replace(FULL, phase=Phase.STOPPED, failure={}))
    assert not prom.exists()


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.STOPPED, Phase.STUCK])
def test_the_file_stays_with_what_failed(paths: Paths, runner: Runner, prom: Path, phase: Phase) -> None:
    with monitoring.watched(tools(paths, runner, METRICS_TEXTFILE=str(prom))) as watch:
        watch(replace(FULL, phase=phase))
    found = samples(prom.read_text())
    assert found[f"driverctr_phase{{{phase}}}"] == 1 and found["driverctr_failure{in-use}"] == 1
    assert not monitoring.is_of_killed(prom), "it came to an end"


def test_a_folder_that_is_not_there_degrades_until_it_is_and_is_said_once(
    paths: Paths, runner: Runner, log: Any, prom: Path
) -> None:
    prom.parent.rmdir()
    with monitoring.watched(tools(paths, runner, METRICS_TEXTFILE=str(prom))) as watch:
        told = watch(replace(FULL, degraded=()))
        told = watch(told)
        (reason,) = told.degraded
        assert reason.startswith(f"no metrics by METRICS_TEXTFILE={prom}: No such file or directory (mount ")
        assert log.stream.getvalue().count("No such file") == 1
        prom.parent.mkdir()
        watch(told)
        assert watch(told).degraded == () and prom.exists()


def test_not_even_a_bug_in_the_metrics_ends_a_driver(
    paths: Paths, runner: Runner, prom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("driverctr_new")

    monkeypatch.setattr(families, "make", fail)
    with monitoring.watched(tools(paths, runner, METRICS_TEXTFILE=str(prom))) as watch:
        (reason,) = watch(replace(FULL, degraded=())).degraded
    assert "KeyError: 'driverctr_new'" in reason


def test_a_file_that_cannot_be_removed_is_said(paths: Paths, runner: Runner, log: Any, prom: Path) -> None:
    (prom / "folder").mkdir(parents=True)
    monitoring.forget(tools(paths, runner, METRICS_TEXTFILE=str(prom)))
    assert f"METRICS_TEXTFILE={prom} stays: Is a directory" in log.stream.getvalue()


def test_a_start_that_is_refused_leaves_its_failure_in_the_file(
    paths: Paths, runner: Runner, prom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tools(paths, runner, METRICS_TEXTFILE=str(prom))
    monkeypatch.setattr(Signals, "install", lambda self: None)
    monkeypatch.setattr(lifecycle, "become_subreaper", lambda: None)

    def refuse(way_up: Any) -> None:
        raise DriverError(Code.NO_GPU, "no GPU")

    monkeypatch.setattr(bringup.BringUp, "run", refuse)
    with pytest.raises(DriverError):
        lifecycle.init(made)
    found = samples(prom.read_text())
    assert found["driverctr_phase{failed}"] == 1 and found["driverctr_failure{no-gpu}"] == 1


def test_a_signal_meets_no_half_written_file(paths: Paths, runner: Runner, prom: Path, monkeypatch: Any) -> None:
    made = tools(paths, runner, METRICS_TEXTFILE=str(prom))
    write = textfile.write

    def signalled(path: Path, registry: Registry) -> None:
        made.signals._on_stop(signal.SIGTERM, None)
        write(path, registry)

    watchers = Watchers(made)
    monkeypatch.setattr(textfile, "write", signalled)
    with pytest.raises(Stopped):
        watchers.tell(FULL)
    assert samples(prom.read_text())["driverctr_phase{ready}"] == 1


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("", None),
        (":9400", ("", 9400)),
        ("127.0.0.1:9400", ("127.0.0.1", 9400)),
        ("[::1]:9400", ("::1", 9400)),
        ("[::]:65535", ("::", 65535)),
    ],
)
def test_addresses_to_listen_on(value: str, endpoint: object) -> None:
    assert settings.load({"METRICS_ADDRESS": value}).metrics_address == endpoint


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("METRICS_ADDRESS", value) for value in ("9400", ":", ":0", ":65536", "::1:9400", "localhost:9400", "[::1]")),
        *(("METRICS_ADDRESS", value) for value in ("[127.0.0.1]:9400", "1.2.3:9400", ":94 00", "127.0.0.1:http")),
        *(("METRICS_TEXTFILE", value) for value in ("driverctr.prom", "/x/driverctr.txt", "/x/\n.prom")),
    ],
)
def test_a_wrong_place_for_metrics_is_refused_with_what_is_valid(variable: str, value: str) -> None:
    with pytest.raises(DriverError) as refused:
        settings.load({variable: value})
    assert refused.value.code is Code.BAD_SETTING and variable in refused.value.message
    assert ":9400" in refused.value.message or ".prom" in refused.value.message
