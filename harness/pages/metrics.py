"""docs/metrics.md: how metrics are switched on and read (metrics.md beside this file), and the table of them all."""

from __future__ import annotations

from pathlib import Path
from string import Template

from driverctr.metrics.monitor import EXTRAS_LAST
from driverctr.metrics.server import CLIENT_LIMIT, MOST_CLIENTS
from driverctr.metrics.table import METRICS


def markdown() -> str:
    """Return the page."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for row in METRICS:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind.value} | {labels} | {row.help} |")
    return Template(Path(__file__).with_suffix(".md").read_text()).substitute(
        table="\n".join(lines),
        most_clients=MOST_CLIENTS,
        client_limit=f"{CLIENT_LIMIT:.0f}",
        extras_last=f"{EXTRAS_LAST:.0f}",
    )
