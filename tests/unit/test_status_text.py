"""The screen of `driverctr status` on a terminal of any width, and of documents that are none."""

import json

import jsonschema
import pytest

from driverctr import status as documents
from driverctr import statustext
from driverctr.paths import Paths
from driverctr.status import Phase
from driverctr.terminal import Paint
from tests.unit import status_nodes
from tests.unit.status_nodes import FAILURE
from tests.unit.test_status import SCHEMA, screen, view_of


def test_a_long_fact_goes_on_below_its_beginning(paths: Paths) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    status_nodes.failed(paths)
    status_nodes.tell(paths, Phase.FAILED, failure={**FAILURE, "message": f"{words}\n\x1b[2Jtail"})
    view = view_of(paths)
    assert any(words in line and line.endswith("[2Jtail (2023-11-14 22:14:10 UTC)") for line in screen(view))
    for width in (40, 80, 200):
        lines = statustext.render(view, Paint(on=False), width).splitlines()
        begins = next(number for number, line in enumerate(lines) if line.startswith("failure:"))
        assert max(map(len, lines[begins:])) <= width and len(lines) > begins + 2
        assert all(line[:14].isspace() != (line[0] != " ") for line in lines)
        told = " ".join(line[14:] for line in lines)
        assert told == " ".join(line[14:] for line in screen(view))
    assert statustext.render(view, Paint(on=False), 20) == statustext.render(view, Paint(on=False))
    painted = statustext.render(view, Paint(on=True), 40).splitlines()
    red = next(line for line in painted if "word7" in line)
    assert red.startswith(" " * 14 + "\x1b[31mword") and red.endswith("\x1b[0m"), "no margin is coloured"


def test_a_secret_is_none_the_less_hidden_where_a_line_ends_before_it(paths: Paths) -> None:
    status_nodes.failed(paths)
    view = view_of(paths)
    view["failure"]["message"] = "curl said Authorization: Bearer s3cr3t-and-0123456789 was refused"
    for width in range(34, 60):
        assert "s3cr3t" not in statustext.render(view, Paint(on=False), width)


def test_a_daemon_that_does_not_run_has_a_line(paths: Paths) -> None:
    lacks = "daemon:       nvidia-persistenced does not run"
    assert lacks not in screen(view_of(status_nodes.with_gpu(paths))), "nobody wanted it"
    assert lacks in screen(view_of(status_nodes.failed(paths)))
    view = view_of(status_nodes.serving(paths))
    painted = statustext.render(view, Paint(on=True))
    assert "\x1b[33mnvidia-persistenced does not run\x1b[0m" in painted
    view["daemons"] = {"nvidia-persistenced": 7}
    assert "daemon:       nvidia-persistenced (pid 7)" in screen(view) and lacks not in screen(view)


def test_a_phase_that_the_kernel_denies_is_not_green(paths: Paths) -> None:
    view = view_of(status_nodes.used(paths))
    assert (view["phase"], view["ready"]) == ("ready", False)
    assert "\x1b[31mready, since" in statustext.render(view, Paint(on=True))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"schema": 1, "pha',
        bytes(100),
        b"[]",
        b"[" * 100_000,
        b'{"schema": 1}',
        b'\xff\xfe{"schema": 1}',
        b'{"schema": 1, "phase": 7, "since": 1.0, "pid": 1}',
        b'{"schema": 1, "phase": "ready", "since": "x", "pid": 1}',
        b'{"schema": 1, "phase": "ready", "since": 1.0, "pid": 1, "steps": 5}',
        b'{"schema": 1, "phase": "ready", "since": 1.0, "pid": 1, "failure": "x"}',
    ],
)
def test_a_document_that_is_damaged_is_none(paths: Paths, content: bytes) -> None:
    status_nodes.serving(paths).status_file.write_bytes(content)
    view = view_of(paths)
    jsonschema.Draft202012Validator(SCHEMA).validate(view)
    assert not view["ready"] and view["phase"] == "starting" and view["start"] is None
    assert screen(view)[0] == "phase:        starting"


def test_the_kinds_of_all_fields_are_told() -> None:
    assert set(documents.KINDS) == set(documents.Status.__dataclass_fields__)
    begun = documents.Status(Phase.STARTING, 1.0, 1)
    for name, value in json.loads(json.dumps(vars(begun))).items():
        assert isinstance(value, documents.KINDS[name]), name


def test_what_answered_a_start_that_is_dead_is_not_told_as_if_it_did_now(paths: Paths) -> None:
    gpu = next(line for line in screen(view_of(status_nodes.serving(paths))) if line.startswith("gpu:"))
    assert gpu.endswith("bound to nvidia, answers")
    status_nodes.let_go(paths)
    gpu = next(line for line in screen(view_of(paths)) if line.startswith("gpu:"))
    assert gpu.endswith("bound to nvidia")
