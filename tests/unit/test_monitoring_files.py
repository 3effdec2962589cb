"""Alerts and dashboard use metrics, labels, phases and codes that there are; promtool judges the rest (tests/image)."""

import json
import re
from pathlib import Path

import pytest

from driverctr.errors import Code
from driverctr.metrics.families import RESULTS
from driverctr.metrics.table import METRICS, Kind
from driverctr.status import Phase

FOLDER = Path(__file__).parents[2] / "deploy/monitoring"
ROWS = {row.name: row for row in METRICS}
FILES = ("alerts.yaml", "alerts.test.yaml", "dashboard.json")
TARGET_LABELS = {"job", "instance"}
"""What Prometheus adds itself."""

KNOWN: dict[str, set[str]] = {"phase": {*Phase}, "code": {*Code}, "result": {*RESULTS}}
"""The values of labels that have few."""


def text(name: str) -> str:
    return (FOLDER / name).read_text().replace('\\"', '"')


def alerts() -> dict[str, str]:
    """Each alert's lines, by its name."""
    parts = re.split(r"^ +- alert: (\w+)$", text("alerts.yaml"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("name", FILES)
def test_every_metric_is_one_of_the_table(name: str) -> None:
    used = set(re.findall(r"\bdriverctr_\w+", text(name)))
    assert len(used) > 10 and not used - set(ROWS)


@pytest.mark.parametrize("name", FILES)
def test_every_label_is_one_of_its_metric_with_a_value_it_can_have(name: str) -> None:
    for metric, inside in re.findall(r"\b(driverctr_\w+)\{([^}]*)\}", text(name)):
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', inside):
            assert label in TARGET_LABELS | set(ROWS[metric].labels), f"{metric}: {label}"
            known = KNOWN.get(label)
            assert known is None or set(values.split("|")) <= known, f"{metric}: {label}={values}"


def test_every_metric_that_is_a_number_to_watch_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"\bdriverctr_\w+", text("dashboard.json")))
    assert {row.name for row in METRICS if row.kind is not Kind.INFO} <= shown


def test_every_alert_tells_what_is_wrong_and_what_to_do_and_is_proved() -> None:
    found = alerts()
    assert len(found) > 10
    proved = text("alerts.test.yaml")
    for name, lines in found.items():
        assert all(f"{word}: " in lines for word in ("expr", "severity", "summary", "description")), name
        assert "runbook: |\n" in lines and re.search(r"^ +1\. ", lines, re.MULTILINE), name
        assert re.search(rf'exp_samples:\n.*alertname="{name}"', proved), f"{name} never fires in alerts.test.yaml"
        assert re.search(rf'alertname="{name}"}}\', eval_time: \w+, exp_samples: \[\]', proved), f"{name} always fires"


def test_the_dashboard_has_panels_beside_each_other_and_each_its_question() -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"]), panel["title"]


def test_what_scrapes_looks_for_the_same_pods_and_the_same_port() -> None:
    for name in ("prometheus.yaml", "podmonitor.yaml"):
        words = text(name)
        assert "driverctr" in words and "metrics" in words
    assert "app.kubernetes.io/name: driverctr" in text("podmonitor.yaml")
    assert "__meta_kubernetes_pod_label_app_kubernetes_io_name" in text("prometheus.yaml")
