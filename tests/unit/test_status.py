"""`driverctr status`: what it tells in every state, by a schema for programs and in one screen for people."""

import argparse
import errno
import json
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

import driverctr
from driverctr import history, statustext, statusverb, statusview, statuswait, terminal, vantage
from driverctr import status as documents
from driverctr.errors import Code, DriverError
from driverctr.facts import hostroot
from driverctr.history import Outcome, Start
from driverctr.inotify import Watcher
from driverctr.paths import Paths
from driverctr.settings import SETTINGS
from driverctr.status import Phase
from driverctr.terminal import Paint
from harness.pages import status as page
from tests.unit import status_nodes
from tests.unit.conftest import make_tree
from tests.unit.status_nodes import FAILURE, PID, STATES
from tests.unit.test_verify import ONE

SCHEMA = json.loads((Path(driverctr.__file__).parent / "status.schema.json").read_text())


def view_of(paths: Paths, **environment: str) -> dict[str, Any]:
    view: dict[str, Any] = json.loads(json.dumps(statusview.collect(vantage.find(paths.root), environment)))
    return view


def screen(view: dict[str, Any]) -> list[str]:
    return statustext.render(view, Paint(on=False)).splitlines()


def objects(schema: dict[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, by where it is."""
    yield name, schema
    for key, inner in schema.get("properties", {}).items():
        yield from objects(inner, f"{name}.{key}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from objects(schema[key], f"{name}.{key}")


@pytest.mark.parametrize("state", STATES)
def test_the_document_is_as_the_schema_says_in_every_state(paths: Paths, state: str) -> None:
    view = view_of(STATES[state](paths))
    jsonschema.Draft202012Validator(SCHEMA).validate(view)
    assert view["schema"] == statusview.SCHEMA
    assert all(line.index(":") < 14 and line[13] == " " and line[14] != " " for line in screen(view))


def test_the_schema_describes_everything_and_allows_nothing_else() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name, schema in objects(SCHEMA):
        assert schema.get("description"), name
        if "object" in schema["type"]:
            assert "additionalProperties" in schema, name
            assert set(schema.get("required", ())) <= set(schema.get("properties", {})), name
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 2, "surprise": 1}, SCHEMA)


def test_the_schema_knows_every_field_and_phase_of_the_starts_document() -> None:
    start = SCHEMA["properties"]["start"]["properties"]
    assert set(start) == {"schema", *documents.Status.__dataclass_fields__}
    assert start["phase"]["enum"] == [phase.value for phase in Phase]
    assert set(SCHEMA["properties"]["phase"]["enum"]) == {*Phase, "not running", "crashed"}
    assert start["schema"]["const"] == documents.SCHEMA


def test_the_page_is_the_schemas() -> None:
    written = Path(driverctr.__file__).parents[2] / "docs/status.md"
    assert written.read_text() == page.markdown(), "./dev docs"


@pytest.mark.parametrize(
    ("state", "phase", "ready"),
    [
        ("bare", "not running", False),
        ("starting", "starting", False),
        ("serving", "ready", True),
        ("degraded", "ready", True),
        ("not_ready", "not-ready", False),
        ("failed", "failed", False),
        ("crashed", "crashed", False),
        ("stopped", "stopped", False),
        ("in_driver_root", "ready", True),
        ("in_driver_root_after_a_crash", "crashed", False),
    ],
)
def test_phase_and_readiness_are_what_is_so(paths: Paths, state: str, phase: str, ready: bool) -> None:
    view = view_of(STATES[state](paths))
    assert (view["phase"], view["ready"]) == (phase, ready)


def test_a_driver_that_serves_fills_one_screen(paths: Paths) -> None:
    view = view_of(status_nodes.serving(paths))
    view["time"] = view["since"] + 200
    lines = screen(view)
    assert lines[:5] == [
        "phase:        ready, since 2023-11-14 22:14:00 UTC (3 min)",
        "ready:        yes",
        "driver:       535.1 (proprietary) for 6.1.0-56-amd64",
        f"loaded:       535.1 (proprietary), build {view['driver']['loaded']['build_id'][:12]}, the one checked",
        "modules from: store",
    ]
    for line in (
        "store:        hit",
        "running:      6.1.0-56-amd64 #1 SMP Debian 6.1.1-1",
        f"gpu:          {ONE} GA100 [A100 SXM4 40GB] [10de:20b0] bound to nvidia, answers",
        "driver root:  not mounted",
        "marker:       validations/.driver-daemons-status: Ready",
        "steps:        withdraw 0.04 s, modules 9.50 s",
    ):
        assert line in lines
    assert len(lines) < 25


def test_what_is_not_as_wanted_is_told_once(paths: Paths) -> None:
    lines = screen(view_of(status_nodes.degraded(paths)))
    for line in (
        "store:        miss, the store has no 535.2 for it",
        "degraded:     535.2 did not load: 535.1 serves",
        "degraded:     nvidia NVreg_A: asked 1, is 0",
        "pending:      parameters changed, and pid 7 uses the driver",
        "lost:         GPU 0: MIG mode Enabled",
    ):
        assert lines.count(line) == 1
    assert any(line.startswith("gpu: ") and line.endswith("does not answer") for line in lines)
    assert not any(line.startswith("rollback:") for line in lines), "degraded says it"
    assert lines[0].startswith("phase:        ready, attempt 2, since ")


def test_who_uses_the_driver_is_told_with_the_words_of_every_in_use(paths: Paths) -> None:
    view = view_of(status_nodes.used(paths))
    assert [user["pid"] for user in view["users"]] == [7] == view["in_use"][0]["pids"]
    assert f"in use:       {view['in_use'][0]['sentence']}" in screen(view)
    assert "pid 7 (sleep 1000) [docker container 3f3f3f3f3f3f" in view["in_use"][0]["sentence"]
    assert f"to free it:   {view['in_use'][0]['remedy']}" in screen(view), "it is not ready"


def test_a_problem_is_told_with_its_code_and_the_kernels_words(paths: Paths) -> None:
    lines = screen(view_of(status_nodes.not_ready(paths)))
    assert "problem:      other-version: nvidia-uvm is version 470.9, not 535.1" in lines
    assert "kernel log:   NVRM: API mismatch" in lines and "ready:        no" in lines


def test_a_failure_is_told_with_code_moment_and_remedy(paths: Paths) -> None:
    lines = screen(view_of(status_nodes.failed(paths)))
    assert "failure:      load-failed: nvidia did not load (2023-11-14 22:14:10 UTC)" in lines
    assert f"remedy:       {FAILURE['remedy']}" in lines
    assert lines[0].startswith("phase:        failed, at step load, since ")
    assert "loaded:       nothing" in lines


def test_what_is_tried_again_is_told_with_when(paths: Paths) -> None:
    view = view_of(status_nodes.retrying(paths))
    view["time"] = FAILURE["at"]
    assert (
        screen(view)[0] == "phase:        retrying, attempt 3, since 2023-11-14 22:14:00 UTC (10 s), next try in 10 s"
    )
    assert screen({**view, "attempt": 1})[0].startswith("phase:        retrying, attempt 1, since ")


def test_who_died_between_two_attempts_tries_no_more(paths: Paths) -> None:
    status_nodes.let_go(status_nodes.retrying(paths))
    view = view_of(paths)
    assert view["phase"] == "crashed" and view["next_try"] is None and "next try" not in screen(view)[0]


def test_a_crash_is_told_with_what_was_left(paths: Paths) -> None:
    view = view_of(status_nodes.crashed(paths))
    assert f"process:      pid {PID} is dead, and left phase ready, since 2023-11-14 22:14:00 UTC" in screen(view)
    assert view["process"] == {"pid": None, "alive": False} and view["since"] is None


def test_a_process_that_may_live_out_of_sight_is_not_called_dead(paths: Paths) -> None:
    status_nodes.crashed(paths)
    (paths.proc / "self/ns/pid").unlink()
    make_tree(paths.root, {"proc/self/ns/pid": "-> pid:[4026532001]", "proc/self/cgroup": "0::/\n"})
    view = view_of(paths)
    assert (view["phase"], view["ready"], view["process"]["alive"]) == ("ready", False, None)
    assert f"process:      {statustext.UNSEEN}" in screen(view) and statustext.UNSEEN in statuswait.describe(view, 3)
    make_tree(paths.root, {"proc/self/cgroup": f"0::/docker/{'3f' * 32}\n"})
    assert view_of(paths)["phase"] == "crashed", "the same container: it would be seen"


def test_a_start_without_a_document_yet_is_starting(paths: Paths) -> None:
    status_nodes.hold(status_nodes.bare(paths))
    assert view_of(paths)["phase"] == "starting"


def test_from_the_driver_root_the_container_is_seen_through_its_process(paths: Paths) -> None:
    found = vantage.find(status_nodes.in_driver_root(paths).root)
    assert found.root == paths.proc / str(PID) / "root" and found.status_file.is_file()
    view = view_of(paths)
    assert view["driver_root"] == {"layers": 1, "ours": True} and view["process"]["pid"] == PID
    assert view["markers"]["validations/.driver-daemons-status"] == "Ready"
    assert (view["store"]["entries"], view["store"]["bytes"]) == (1, 7), "by the settings of that process"


def test_from_the_driver_root_of_a_dead_process_the_rest_is_seen(paths: Paths) -> None:
    found = vantage.find(status_nodes.in_driver_root_after_a_crash(paths).root)
    assert found.beside == paths.proc / "1/root" and found.status_file.is_file()
    view = view_of(paths)
    assert view["driver_root"] == {"layers": 1, "ours": True}
    assert view["markers"]["validations/.driver-daemons-status"] == "Ready"


def test_another_container_sees_the_device_nodes_of_that_which_runs(paths: Paths) -> None:
    container = status_nodes.serving(Paths(paths.root.parent / "container"))
    (container.root / "sys/class").mkdir()
    make_tree(paths.root, {"run": None, f"proc/{PID}/root": f"-> {container.root}", f"proc/{PID}/mountinfo": ""})
    (paths.root / "run/nvidia").symlink_to(container.run)
    (paths.proc / "locks").write_text((container.proc / "locks").read_text())
    assert vantage.find(paths.root).dev == paths.proc / str(PID) / "root/dev" and view_of(paths)["ready"]
    (paths.proc / str(PID) / "root").unlink()
    assert vantage.find(paths.root) == Paths(paths.root), "a process that we may not look into"


def test_from_a_root_that_is_not_the_driver_root_nothing_is_guessed(paths: Paths) -> None:
    status_nodes.in_driver_root(paths)
    other = paths.root.parent / "host/run/nvidia/driver"
    other.unlink()
    other.mkdir()
    assert vantage.find(paths.root).beside is None and view_of(paths)["phase"] == "not running"


def test_process_1_in_our_mount_namespace_is_the_host_for_who_was_chrooted_into_the_driver_root(paths: Paths) -> None:
    host = paths.root.parent / "host"
    make_tree(host, {"lib/modules": None, "run/nvidia/driver": f"-> {paths.root}"})
    spaces = {"proc/1/ns/mnt": "-> mnt:[1]", "proc/self/ns/mnt": "-> mnt:[1]", "proc/1/root": f"-> {host}"}
    make_tree(paths.root, spaces)
    found = hostroot.process_root(paths.root)
    assert found is not None and found.path == paths.proc / "1/root"
    (host / "run/nvidia/driver").unlink()
    assert hostroot.process_root(paths.root) is None


def test_process_1_that_is_we_is_not_the_host_though_our_root_is_published(paths: Paths) -> None:
    make_tree(paths.root, {"lib/modules": None, "run/nvidia/driver": f"-> {paths.root}"})
    spaces = {"proc/1/ns/mnt": "-> mnt:[1]", "proc/self/ns/mnt": "-> mnt:[1]", "proc/1/root": f"-> {paths.root}"}
    make_tree(paths.root, spaces)
    assert hostroot.is_driver_root(paths.root) and hostroot.process_root(paths.root) is None


def test_the_store_is_measured_and_steps_are_compared_with_earlier_ones(paths: Paths) -> None:
    status_nodes.serving(paths)
    store = status_nodes.folder_of(paths)
    make_tree(store, {"entries/one/nvidia.ko": "x" * 3_000_000, "entries/two/nvidia.ko": "x"})
    for seconds in (2.0, 4.0, 3.0):
        steps = {"modules": seconds}
        history.record(store, Start(seconds, 9, Outcome.READY, modules_from="store", steps=steps))
    history.record(store, Start(5, 9, Outcome.READY, modules_from="build", steps={"modules": 90.0}))
    history.record(store, Start(1_700_000_000.0, 9, Outcome.READY, modules_from="store", steps={"modules": 9.5}))
    view = view_of(paths)
    assert [step["median"] for step in view["steps"]] == [None, 3.0]
    lines = screen(view)
    assert f"store:        hit; {store}: 2 entries, 3 MB" in lines
    assert "steps:        withdraw 0.04 s, modules 9.50 s (median 3.00) !" in lines


def test_a_setting_that_is_not_valid_keeps_nobody_from_looking(paths: Paths) -> None:
    status_nodes.folder_of(status_nodes.serving(paths))
    view = view_of(paths, VERIFY_DEPTH="deep")
    jsonschema.Draft202012Validator(SCHEMA).validate(view)
    assert view["ready"] and view["store"]["entries"] == 0
    (refused,) = view["refused_settings"]
    assert refused["code"] == "bad-setting" and "VERIFY_DEPTH='deep'" in refused["message"]
    lines = screen(view)
    assert f"setting:      bad-setting: {refused['message']}" in lines and f"remedy:       {refused['remedy']}" in lines
    assert len(view_of(paths, STORE_DIR="store")["refused_settings"]) == 1


def test_the_defaults_of_the_settings_are_told_alike() -> None:
    default = next(row.default for row in SETTINGS if row.variable == "STORE_DIR")
    assert str(statusview.DEFAULT_STORE) == default


@pytest.mark.parametrize(
    ("environment", "is_terminal", "coloured"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    paths: Paths, environment: dict[str, str], is_terminal: bool, coloured: bool
) -> None:
    stream = StringIO()
    stream.isatty = lambda: is_terminal  # type: ignore[method-assign]  # a StringIO is no terminal
    paint = terminal.paint_for(stream, environment)
    text = statustext.render(view_of(status_nodes.serving(paths)), paint)
    assert ("\x1b[32myes\x1b[0m" in text, "\x1b" in text) == (coloured, coloured)


@pytest.mark.parametrize(
    ("seconds", "said"), [(-1, "0 s"), (42, "42 s"), (200, "3 min"), (8000, "2 h"), (200_000, "2 days")]
)
def test_times_are_told_as_people_tell_them(seconds: float, said: str) -> None:
    assert statustext.span(seconds) == said


def test_the_verb_ends_with_ready_or_not(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    status_nodes.serving(paths)
    tools: Any = SimpleNamespace(paths=paths)
    plain = argparse.Namespace(json=True, wait=None, timeout=None)
    assert statusverb.show(tools, plain) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    status_nodes.let_go(paths)
    plain.json = False
    assert statusverb.show(tools, plain) == Code.NOT_READY.exit_status
    assert capsys.readouterr().out.startswith("phase:        crashed\n")
    plain.timeout = 3.0
    with pytest.raises(DriverError, match="--timeout says how long to wait") as refused:
        statusverb.show(tools, plain)
    assert refused.value.code is Code.BAD_USAGE


def test_where_nothing_can_be_watched_the_kernels_limit_is_blamed(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(watcher: Watcher) -> None:
        raise OSError(errno.EMFILE, "Too many open files: inotify_init1")

    monkeypatch.setattr(Watcher, "__init__", refuse)
    words = argparse.Namespace(json=False, wait="ready", timeout=0.2)
    with pytest.raises(DriverError, match="cannot be watched: Too many open files: inotify_init1") as failed:
        statusverb.show(SimpleNamespace(paths=status_nodes.failed(paths)), words)  # type: ignore[arg-type]  # paths alone
    assert failed.value.code is Code.NODE_FILE and "fs.inotify.max_user_instances" in failed.value.remedy


def test_who_waits_gets_the_reason_at_the_end(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    status_nodes.failed(paths)
    tools: Any = SimpleNamespace(paths=paths)
    began = time.monotonic()
    words = argparse.Namespace(json=False, wait="ready", timeout=0.2)
    assert statusverb.show(tools, words) == Code.NOT_READY.exit_status
    assert 0.2 <= time.monotonic() - began < 5
    told = capsys.readouterr()
    assert told.out.startswith("phase:        failed, at step load")
    assert told.err.startswith("not ready after 0 s: failed, at step load, since ")
    assert told.err.endswith("; load-failed: nvidia did not load. Look into dmesg\n")


@pytest.mark.parametrize(("failures", "is_told"), [(2, True), (3, False)])
def test_a_tree_that_changes_while_it_is_read_is_read_again(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, failures: int, is_told: bool
) -> None:
    collect, left = statusview.collect, [OSError(errno.ESRCH, "No such process", "/proc/7/root")] * failures

    def gone(paths: Paths, environment: Any) -> Any:
        if left:
            raise left.pop()
        return collect(paths, environment)

    monkeypatch.setattr(statusview, "collect", gone)
    node = status_nodes.failed(paths)
    if is_told:
        assert statusverb.look(node, {})["phase"] == "failed"
        return
    with pytest.raises(DriverError, match="No such process") as failed:
        statusverb.look(node, {})
    assert failed.value.code is Code.NODE_FILE
