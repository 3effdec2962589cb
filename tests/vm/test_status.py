"""What `driverctr status` tells in a real life of the driver: in words by the scenario, as a document by its schema."""

import json
from pathlib import Path

import jsonschema
import pytest

import driverctr
from harness import standin

pytestmark = pytest.mark.vm

MARK = "document: "


def test_status_from_everywhere_and_to_its_end(rootfs: Path) -> None:
    result = standin.run_scenario("status", standin.scenario_spec(rootfs), "docker").check()
    documents = [json.loads(line.partition(MARK)[2]) for line in result.output.splitlines() if MARK in line]
    schema = json.loads((Path(driverctr.__file__).parent / "status.schema.json").read_text())
    for document in documents:
        jsonschema.validate(document, schema)
    assert [document["phase"] for document in documents] == ["ready", "ready", "crashed", "failed"]
