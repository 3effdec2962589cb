"""Lines of the log for machines: every field is in the table, of its type, and where the table says."""

import ast
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from driverctr import log as module
from driverctr import progress, verbs
from driverctr.errors import Code, DriverError
from driverctr.lifecycle import Start
from driverctr.log import Format, Level, Log
from driverctr.log_fields import FIELDS
from driverctr.modules.built import Built
from driverctr.paths import Paths
from driverctr.plan import StepName
from driverctr.retry import retry
from harness.pages import logs
from tests.unit.conftest import FakeBin
from tests.unit.test_built import WISH, built
from tests.unit.test_secrets import node, steps

__all__ = ["built", "node"]

TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float)}
ALWAYS = [field.name for field in FIELDS if field.when == "always"]
PARTS = ("headers", "build", "remote", "push")
STEPS = {*StepName, *(f"undo {name}" for name in StepName), *PARTS}


def check(text: str) -> list[dict[str, Any]]:
    """The lines, each as the table has it."""
    table = {field.name: field for field in FIELDS}
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert line.keys() <= table.keys(), f"not in the table: {line}"
        assert list(line)[: len(ALWAYS)] == ALWAYS
        for name, value in line.items():
            assert isinstance(value, TYPES[table[name].kind]) and not isinstance(value, bool), (name, line)
        assert line["level"] in list(Level) and line["time"].endswith("+00:00")
        assert line.get("code", Code.BUG) in list(Code)
        assert ("step" in line) is ("event" in line)
        if "step" in line:
            assert line["step"] in STEPS and line["event"] in ("start", "done", "failed")
            assert ("seconds" in line) is (line["event"] != "start")
        assert ("attempt" in line) is ("next_try" in line)
        assert "done" in line or not {"total", "rate", "left"} & line.keys()
    assert lines
    return lines


def test_the_table_has_what_a_line_may_have_and_nothing_else() -> None:
    """Fields is for who checks types, and is no more when we run."""
    (typed,) = (
        node
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.ClassDef) and node.name == "Fields"
    )
    names = [
        each.target.id for each in typed.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]
    assert [*ALWAYS, *names] == [field.name for field in FIELDS]


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs/logs.md"
    assert page.read_text() == logs.markdown(), "run ./dev docs"
    assert all(f"| `{field.name}` |" in page.read_text() for field in FIELDS)


@pytest.mark.parametrize("failing", [None, StepName.VERIFY, StepName.MODULES])
def test_every_line_of_a_whole_start_is_as_the_table_says(
    node: Paths, failing: StepName | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    made = steps(monkeypatch)

    def wait(start: Start) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Start, "wait", wait)
    if failing:
        error = DriverError(Code.BUILD_FAILED, "nv.c:1: no", "Fix it")
        made[failing].failures |= {"": error, "on-disk": error, "build": error}
    made[StepName.WITHDRAW].failures["undo"] = DriverError(Code.NODE_FILE, "read-only")
    verbs.run(["init"])
    lines = check(capsys.readouterr().err)
    begun = [line["step"] for line in lines if line.get("event") == "start"]
    ended = [line["step"] for line in lines if line.get("event") in ("done", "failed")]
    assert sorted(begun) == sorted(ended) and "withdraw" in begun
    failed = [line["step"] for line in lines if line.get("event") == "failed"]
    assert failing is None or failing.value in failed
    assert {line["code"] for line in lines if line["level"] == "error" and "code" in line} & {"build-failed", "bug"}


def test_every_line_of_a_build_and_of_attempts_is_as_the_table_says(
    built: Built, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    (built.root / "usr/src/nvidia/count-lines.mk").write_text("")
    copy = f"/bin/cp {built.root.parent}/made/*.ko ."
    build = f"for n in 1 2 3; do echo '  CC [M]  x.o'; /bin/sleep 0.05; done; {copy}"
    fake_bin.add("make", f"case \"$*\" in *count-lines.mk*) echo 'objects:2 modules:1';; *) {build};; esac")
    log = Log(Format.JSON, Level.DEBUG, StringIO())
    replace(built, log=log, runner=replace(built.runner, log=log)).find(WISH)

    def fail() -> None:
        raise DriverError(Code.REMOTE_FAILED, "no answer")

    with pytest.raises(DriverError):
        retry(fail, attempts=2, first_pause=1.0, pause=lambda _: None, log=log)
    assert isinstance(log.stream, StringIO)
    lines = check(log.stream.getvalue())
    counts = [line for line in lines if "done" in line]
    assert [line["done"] for line in counts] == [1, 2, 3] and all(line["total"] == 3 for line in counts)
    assert "rate" not in counts[0] and counts[2]["rate"] > 0 and counts[2]["left"] == 0
    assert [line["attempt"] for line in lines if "attempt" in line] == [1]
    assert [line["step"] for line in lines if line.get("event") == "done"] == ["headers", "build"]


def test_what_a_build_beforehand_says_has_its_fields_and_its_kernel() -> None:
    from driverctr.prebuild import Prebuild

    log = Log(Format.JSON, stream=StringIO())
    relaying = Prebuild.__new__(Prebuild)
    relaying.runner, relaying.building, relaying.last_error = type("Runner", (), {"log": log})(), "6.1.0-9", ""
    relaying._relay('{"time": "x", "level": "error", "message": "no", "code": "no-space", "step": "build", "odd": 1}')
    relaying._relay("no JSON")
    assert isinstance(log.stream, StringIO)
    first, second = map(json.loads, log.stream.getvalue().splitlines())
    assert relaying.last_error == "no"
    assert {name: first[name] for name in first if name != "time"} == {
        "level": "error",
        "message": "for kernel 6.1.0-9: no",
        "code": "no-space",
        "step": "build",
        "kernel": "6.1.0-9",
    }
    assert second["message"] == "for kernel 6.1.0-9: no JSON" and second["kernel"] == "6.1.0-9"


def test_words_of_other_programs_steer_no_terminal_and_are_never_left_out() -> None:
    stream = StringIO()
    Log(stream=stream).info("cc1: \x1b[31merror\x1b[0m\r in caf\udce9\x9b2J: für\u00a0日本\n\tline 2")
    assert (
        stream.getvalue()[21:] == "cc1: \ufffd[31merror\ufffd[0m\ufffd in caf\ufffd\ufffd2J: für\u00a0日本\n\tline 2\n"
    )
    stream.getvalue().encode()
