"""Verbs and flags; the one place that catches DriverError; exit statuses."""

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words == ["probe_nvidia_peermem"]:
        from driverctr.peermem import probe

        return probe()
    if "-h" in words or "--help" in words:
        return help_on(words)
    if words in (["status"], ["status", "--json"]):
        return show_status(words)
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


def help_on(words: list[str]) -> int:
    """Print it, with nothing but the parser imported; where the words are wrong before it comes to that, say so."""
    import gc

    gc.disable()
    from driverctr.parser import make_parser

    try:
        make_parser().parse_args(words)
    except Exception as end:  # noqa: BLE001  # told as every other verb's
        return tell_end(words, end)
    from driverctr.verbs import run

    return run(words)


def show_status(words: list[str]) -> int:
    """What monitors ask for again and again: no parser, and only what has something to tell is imported."""
    import gc

    gc.disable()
    try:
        from driverctr import statusverb

        return statusverb.print_now(os.environ, as_json=len(words) > 1)
    except Exception as end:  # noqa: BLE001  # told as every other verb's
        return tell_end(words, end)


def tell_end(words: list[str], end: Exception) -> int:
    """Say how a verb ended that was begun without the rest of us."""
    from driverctr.log import Log
    from driverctr.paths import Paths
    from driverctr.verbs import tell_end

    return tell_end(words, end, Log(), Paths())


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
