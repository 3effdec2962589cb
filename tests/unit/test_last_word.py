"""What a start that is refused, or fails by our own fault, leaves: no marker that lies, one line that says why."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from driverctr import lifecycle, markers, pidlock, status, stopping, survey, verbs
from driverctr.errors import Code, DriverError
from driverctr.explain import EXPLANATIONS
from driverctr.lifecycle import Start
from driverctr.log import Log
from driverctr.paths import Paths
from driverctr.steps import Tools
from driverctr.survey import Facts
from tests.unit.conftest import make_tree
from tests.unit.fake_life import Life
from tests.unit.fake_life import life as life
from tests.unit.test_preflight import REFUSED

READY = 'driverctr_phase{phase="ready"} 1.0\ndriverctr_ready 1.0\n'
OPERATING = (Path(__file__).parents[2] / "docs/operating.md").read_text()


@pytest.fixture
def killed(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A node on which a ready start was killed; Kubernetes wants a last word of the next."""
    make_tree(paths.root, {"dev/termination-log": ""})
    markers.write_daemons_status(paths.run, ready=True)
    markers.write_ready(paths.run, gds=False, gdrcopy=False, rdma=False)
    markers.write_digest(paths.run, "42")
    monkeypatch.setattr(verbs, "Paths", lambda: paths)
    return paths


def left(paths: Paths) -> set[str]:
    return {name for name in (markers.DAEMONS, markers.CONTAINER, markers.DIGEST) if (paths.run / name).exists()}


def last_word(paths: Paths) -> dict[str, object]:
    return dict(json.loads(paths.termination_log.read_text()))


@pytest.mark.parametrize(
    ("words", "variable", "code"),
    [
        (["init"], "VERIFY_DEPTH", Code.BAD_SETTING),
        (["load"], "VERIFY_DEPTH", Code.BAD_SETTING),
        (["init", "--max-threads", "x"], "", Code.BAD_SETTING),
        (["init", "--frobnicate"], "", Code.BAD_USAGE),
        (["load", "extra"], "", Code.BAD_USAGE),
    ],
)
def test_a_start_that_is_refused_before_the_lock_withdraws_markers_and_says_why(
    killed: Paths, words: list[str], variable: str, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "deep")
    assert verbs.run(words) == code.exit_status
    assert left(killed) == {markers.DIGEST} and not killed.pid_file.exists()
    said = last_word(killed)
    assert (said["code"], said["exit_status"]) == (code.value, code.exit_status)
    assert said["message"] and said["remedy"]
    assert all(f"`{field}`" in OPERATING for field in said)


def test_what_is_withdrawn_is_where_the_settings_that_are_valid_say(
    killed: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    markers.withdraw(killed.run, digest=False)
    metrics = killed.root / "prom/driverctr.prom"
    make_tree(killed.root, {"labels/driverctr": "nvidia.com/x=1\n", "prom/driverctr.prom": READY})
    monkeypatch.setenv("RETRY", "perhaps")
    monkeypatch.setenv("NFD_FEATURES_DIR", "/labels")
    monkeypatch.setenv("METRICS_TEXTFILE", str(metrics))
    with pidlock.held(killed.pid_file):
        assert verbs.run(["init"]) == Code.BAD_SETTING.exit_status
        assert metrics.exists(), "of who lives"
    assert verbs.run(["init"]) == Code.BAD_SETTING.exit_status
    assert not (killed.root / "labels/driverctr").exists() and not metrics.exists()


@pytest.mark.parametrize("phase", ["failed", "stopped", "stuck"])
def test_metrics_of_a_start_that_came_to_an_end_stay_to_be_read(
    killed: Paths, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = killed.root / "driverctr.prom"
    make_tree(killed.root, {"driverctr.prom": READY.replace("ready", phase)})
    monkeypatch.setenv("METRICS_TEXTFILE", str(metrics))
    assert verbs.run(["init", "--frobnicate"]) == Code.BAD_USAGE.exit_status
    assert metrics.exists()


def test_markers_of_a_container_that_lives_are_left_to_it(killed: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERIFY_DEPTH", "deep")
    with pidlock.held(killed.pid_file):
        assert verbs.run(["init"]) == Code.BAD_SETTING.exit_status
        assert left(killed) == {markers.DAEMONS, markers.CONTAINER, markers.DIGEST}


def test_a_refused_start_where_nothing_was_left_makes_no_file(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "Paths", lambda: paths)
    assert verbs.run(["init", "--frobnicate"]) == Code.BAD_USAGE.exit_status
    assert not list(paths.root.iterdir())


@pytest.mark.parametrize("words", [["plan", "--frobnicate"], ["unload", "extra"]])
def test_a_verb_beside_a_driver_leaves_markers_and_last_word_alone(killed: Paths, words: list[str]) -> None:
    assert verbs.run(words) == Code.BAD_USAGE.exit_status
    assert left(killed) == {markers.DAEMONS, markers.CONTAINER, markers.DIGEST}
    assert not killed.termination_log.read_text()


def test_a_bug_has_a_last_word_too(killed: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(tools: Tools, *, build_allowed: bool) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(lifecycle, "init", init)
    assert verbs.run(["init"]) == 70
    said = last_word(killed)
    assert (said["code"], said["exit_status"]) == ("bug", 70)
    assert said["message"] == "ZeroDivisionError: division by zero" and said["remedy"]


def test_after_a_bug_the_status_says_failed(life: Life, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(start: Start) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Start, "wait", wait)
    with pytest.raises(ZeroDivisionError):
        life.start.run()
    document = status.read(paths)
    assert document is not None and document["phase"] == "failed"
    assert document["failure"]["code"] == "bug" and "division by zero" in document["failure"]["message"]


def test_the_first_thing_under_the_lock_is_that_nothing_says_ready(
    life: Life, killed: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []

    @contextmanager
    def held(*_: object) -> Iterator[None]:
        seen.append(left(killed))
        yield

    def run(start: Start) -> None:
        seen.append(left(killed))
        seen.append({(killed.run / markers.DAEMONS).read_text()})
        raise DriverError(Code.NO_GPU, "no GPU")

    monkeypatch.setattr(pidlock, "held", held)
    monkeypatch.setattr(Start, "run", run)
    monkeypatch.setattr(life.start.tools.signals, "install", lambda: None)
    with pytest.raises(DriverError):
        lifecycle.init(life.start.tools)
    everything = {markers.DAEMONS, markers.CONTAINER, markers.DIGEST}
    assert seen == [everything, {markers.DAEMONS, markers.DIGEST}, {"NotReady\n"}]


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_remedy_that_does_not_send_back_to_the_message(code: Code) -> None:
    remedy = EXPLANATIONS[code].remedy
    assert len(remedy.split()) > 2 and not remedy.startswith("See the message") and remedy.endswith(".")


def test_an_error_without_a_remedy_of_its_own_is_told_with_that_of_its_code_everywhere(
    killed: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = DriverError(Code.COMMAND_FAILED, "`cp` failed")

    def init(tools: Tools, *, build_allowed: bool) -> None:
        raise error

    monkeypatch.setattr(lifecycle, "init", init)
    assert verbs.run(["init"]) == error.code.exit_status
    remedy = EXPLANATIONS[error.code].remedy
    assert f"`cp` failed. {remedy}" in capsys.readouterr().err
    assert last_word(killed)["remedy"] == remedy
    assert status.describe_failure(error)["remedy"] == remedy
    assert status.describe_failure(DriverError(error.code, "x", "Do this"))["remedy"] == "Do this"


@pytest.mark.parametrize(
    ("known", "code"), [(known, code) for name, known, code, _ in REFUSED if not name.startswith("build")]
)
def test_what_preflight_refuses_is_what_a_start_ends_with(
    life: Life, known: Facts, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: known)
    monkeypatch.setattr(stopping, "BUSY_WAIT", 0.0)
    with pytest.raises(DriverError) as refused:
        life.start.run()
    assert refused.value.code is code and life.start.told.failure["code"] == code.value


def test_an_output_that_is_full_is_no_bug(paths: Paths) -> None:
    stream = StringIO()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert verbs.tell_end(["status"], full, Log(stream=stream), paths) == Code.NO_SPACE.exit_status
    assert "status: [Errno 28] No space left on device. Free space there code=no-space\n" in stream.getvalue()
