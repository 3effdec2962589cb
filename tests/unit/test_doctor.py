"""What doctor shows: each check with result, evidence and remedy, in a form that reads well and one for programs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr import doctor
from driverctr.errors import Code
from driverctr.facts.privilege import Privilege
from driverctr.plan import Plan, make
from driverctr.preflight import Check, Result
from tests.unit.good_node import GOOD_NODE, facts, node

CONFIG = settings.load({})
POOR = node(privilege=Privilege(("SYS_ADMIN",), False))
PAGE = Path(__file__).parents[2] / "docs/doctor.md"
LONG = Plan(
    "driver 1",
    (),
    (
        Check("a", Result.OK, "fine"),
        Check("b", Result.REFUSED, "evidence " * 20, Code.IN_USE, "remedy " * 20, ("warning " * 20,)),
    ),
)


def test_each_check_is_a_line_that_begins_with_its_result_and_name() -> None:
    lines = doctor.describe(make(CONFIG, POOR)).splitlines()
    assert lines[0] == "For: driver 535.309.01 (proprietary modules) for kernel 6.1.0-56-amd64" and lines[1] == ""
    assert lines[2] == "refused  privilege       no-privilege: missing capabilities: SYS_ADMIN"
    assert lines[3].strip().startswith("remedy: Run the container with --privileged")
    assert lines[4].startswith("ok       settled         ")


def test_the_last_line_says_what_it_means_for_a_start() -> None:
    last = doctor.describe(make(CONFIG, POOR)).splitlines()[-1]
    assert last == "Refused: privilege; `init` would end with exit status 5 (no-privilege)."
    assert doctor.describe(make(CONFIG, facts())).splitlines()[-1] == "Nothing is in the way of a start."
    blind = facts(node=replace(GOOD_NODE, support=None), gpus=())
    said = doctor.describe(make(settings.load({"NO_GPU": "wait"}), blind)).splitlines()[-1]
    assert said == "Nothing is in the way of a start. Not known from here: gpu."


@pytest.mark.parametrize("width", [10, 60, 80, 200])
def test_on_a_terminal_lines_fit_and_hang_below_their_first_word(width: int) -> None:
    lines = doctor.describe(LONG, width).splitlines()
    assert all(len(line) <= max(width, doctor.NARROWEST) for line in lines)
    broken = [line for line in lines if line.strip().startswith(("evidence", "remedy", "warning")) and ":" not in line]
    indents = {line.strip().split()[0]: len(line) - len(line.lstrip()) for line in broken}
    assert width == 200 or indents == {
        "evidence": doctor.LEFT,
        "warning": doctor.LEFT + len("warning: "),
        "remedy": doctor.LEFT + len("remedy: "),
    }


def test_what_goes_into_a_file_is_not_broken() -> None:
    assert any("evidence " * 19 in line for line in doctor.describe(LONG, None).splitlines())


def test_the_document_has_a_schema_and_each_field_is_on_the_page() -> None:
    made = json.loads(json.dumps(doctor.collect(make(CONFIG, POOR))))
    assert made["schema"] == doctor.SCHEMA and made["exit_status"] == Code.NO_PRIVILEGE.exit_status
    assert made.keys() == doctor.FIELDS.keys()
    assert all(check.keys() == doctor.FIELDS_OF_A_CHECK.keys() for check in made["checks"])
    page = PAGE.read_text()
    fields = {**doctor.FIELDS, **doctor.FIELDS_OF_A_CHECK}
    assert not [name for name, text in fields.items() if f"| `{name}` | {text} |" not in page]
