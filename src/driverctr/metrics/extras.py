"""What no status document has: size of the store, kernels that may run next. Tens of files are read for it."""

from collections.abc import Mapping
from typing import Any

from driverctr import nextkernels
from driverctr.errors import DriverError
from driverctr.metrics.families import Extras
from driverctr.modules.store import Store, locate
from driverctr.steps import Tools


def read(tools: Tools, told: Mapping[str, Any]) -> Extras:
    """As things are now; what cannot be read is left out. `told` is status.Status.next_kernels."""
    size, count = _store(tools)
    try:
        kernels = nextkernels.read(tools.paths, tools.config, tools.runner.log, told)
    except (OSError, DriverError):
        kernels = []
    ready = {row["release"]: row["ready"] for row in kernels if row["rebuilt"] or not row["running"]}
    return Extras(size, count, ready)


def _store(tools: Tools) -> tuple[int | None, int | None]:
    try:
        entries = Store.open(locate(tools.paths, tools.config), tools.runner.log).entries()
    except (OSError, DriverError):
        return None, None
    return sum(found.size for found in entries), len(entries)
