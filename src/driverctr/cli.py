"""Verbs and flags; the one place that catches DriverError; exit statuses."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words == ["probe_nvidia_peermem"]:
        from driverctr.peermem import probe

        return probe()
    from driverctr.verbs import run

    return run(words)
