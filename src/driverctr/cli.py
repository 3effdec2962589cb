"""Verbs and flags; the one place that catches DriverError; exit statuses."""

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words == ["probe_nvidia_peermem"]:
        from driverctr.peermem import probe

        return probe()
    from driverctr.deferred import defer_of_others

    defer_of_others()
    hashes = None
    if words[:1] in (["init"], ["load"]):
        import gc

        from driverctr.hashing import begin_early

        # What is imported stays: to look through it for what does not is a twentieth of a start.
        gc.disable()
        hashes = begin_early(os.environ)
    from driverctr.verbs import run

    return run(words, hashes)


def leave(status: int | str | None) -> None:
    """End the process at once: to take the interpreter apart costs a fifth of a stop, and frees what the kernel frees.

    `status` as sys.exit takes it.
    """
    if isinstance(status, str):
        sys.stderr.write(f"{status}\n")
        status = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    os._exit(status or 0)
