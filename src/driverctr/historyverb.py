"""`driverctr history`: what the starts of this node took, and how they ended."""

import argparse
import sys
import time
from collections.abc import Sequence

from driverctr import history
from driverctr.conceal import printed
from driverctr.errors import Code, DriverError
from driverctr.history import Start
from driverctr.steps import Tools

SCHEMA = 1
SHOWN = 20
"""Starts that are printed; --all prints every one."""


def show(tools: Tools, arguments: argparse.Namespace) -> int:
    """Print one line a start, and the 50th and 95th percentile of each step; raises DriverError (no-modules)."""
    place = history.folder(tools.paths, tools.config)
    if place is None:
        raise DriverError(
            Code.NO_MODULES,
            f"there is no history: it lies in the store, and neither {tools.config.store_dir} nor the folder it lies "
            "in is there",
            f"Mount a folder of the host at {tools.config.store_dir.parent}",
        )
    starts = history.read(place)
    if arguments.json:
        document = {
            "schema": SCHEMA,
            "starts": [start.as_dict() for start in starts],
            "percentiles": percentiles(starts),
        }
        sys.stdout.write(printed(document))
    else:
        sys.stdout.write(printed(format_history(starts if arguments.all else starts[-SHOWN:], starts)))
    return 0


def percentiles(starts: Sequence[Start]) -> dict[str, dict[str, dict[str, float]]]:
    """By where the modules came from, and by step: p50 and p95 of its seconds, of starts that became ready."""
    sources = dict.fromkeys(start.modules_from for start in starts)
    return {
        source or "none": {
            name: {"p50": history.percentile(values, 50), "p95": history.percentile(values, 95)}
            for name, values in found.items()
        }
        for source in sources
        if (found := history.samples([start for start in starts if start.modules_from == source]))
    }


def format_history(shown: Sequence[Start], starts: Sequence[Start]) -> str:
    """For people: the latest starts, oldest first, and what starts took by where their modules came from."""
    if not starts:
        return "No start is on record yet.\n"
    head = ("STARTED (UTC)", "SECONDS", "OUTCOME", "ATTEMPTS", "MODULES FROM", "DRIVER", "KERNEL")
    lines = _aligned([head, *map(_row, shown)])
    for source, steps in percentiles(starts).items():
        lines += ["", f"Seconds of each step with modules from {source} (ready at the first attempt)"]
        took = [(name, f"{of['p50']:.2f}", f"{of['p95']:.2f}") for name, of in steps.items()]
        lines += _aligned([("STEP", "P50", "P95"), *took])
    return "\n".join(lines) + "\n"


def _row(start: Start) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(start.started))
    outcome = start.outcome.value + (f" ({start.code})" if start.code else "")
    outcome += f" in {start.step}" if start.step else ""
    driver = f"{start.driver_version} {start.module_type}".strip()
    return (
        when,
        f"{start.seconds:.1f}",
        outcome,
        str(start.attempts),
        start.modules_from or "-",
        driver or "-",
        start.kernel_release or "-",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
