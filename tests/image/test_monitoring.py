"""promtool's word on deploy/monitoring, and on what we expose."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from driverctr.metrics.families import Counts, Extras, Truth
from harness import promtool
from harness.wheels import REPOSITORY
from tests.unit.test_metrics import FULL, text_of

FOLDER = REPOSITORY / "deploy/monitoring"
LIMIT_S = 120


@pytest.fixture(scope="session")
def program() -> Path:
    """Return promtool."""
    return promtool.get()


def judged(program: Path, *words: str | Path, stdin: str = "") -> str:
    """Return what promtool says; raise unless it is content."""
    result = subprocess.run([program, *words], input=stdin, capture_output=True, text=True, timeout=LIMIT_S)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_the_alerts_are_rules_and_fire_when_they_should(program: Path) -> None:
    assert "SUCCESS: 16 rules" in judged(program, "check", "rules", FOLDER / "alerts.yaml")
    assert "SUCCESS" in judged(program, "test", "rules", FOLDER / "alerts.test.yaml")


def test_the_scrape_configuration_is_one(program: Path, tmp_path: Path) -> None:
    """Debian's Prometheus knows no discovery by Kubernetes: it is replaced, and all else is judged."""
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    words = (FOLDER / "prometheus.yaml").read_text()
    found = "    kubernetes_sd_configs:\n      - role: pod\n"
    assert found in words
    (tmp_path / "prometheus.yaml").write_text(words.replace(found, "    static_configs: [{targets: [node:9400]}]\n"))
    assert "SUCCESS" in judged(program, "check", "config", tmp_path / "prometheus.yaml")


def test_every_expression_of_the_dashboard_is_one(program: Path, tmp_path: Path) -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    # JSON is YAML.
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(asked)} rules" in judged(program, "check", "rules", tmp_path / "rules.yaml")


def test_what_we_expose_is_as_prometheus_wants_it(program: Path) -> None:
    counts = Counts({"hit": 1}, {"in-use": 2}, 9.5)
    text = text_of(asdict(FULL), Truth(True, False, {"gpu-lost": 1}), counts, Extras(300, 2, {"6.2": True}))
    assert judged(program, "check", "metrics", stdin=text) == ""
