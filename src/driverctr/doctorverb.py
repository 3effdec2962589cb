"""`driverctr doctor`: the checks, or with --bundle everything that a bug report needs."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from driverctr import bundle, doctor, survey
from driverctr.conceal import printed
from driverctr.errors import Code, DriverError
from driverctr.plan import make
from driverctr.steps import Tools

STANDARD_OUTPUT = "-"
UNTOLD = 80


def run(tools: Tools, arguments: argparse.Namespace) -> int:
    """Print every check, exit status that of the first refusal or 0; a bundle is 0 once it is written."""
    if arguments.bundle is not None:
        return write_bundle(tools, arguments)
    made = make(tools.config, survey.survey(tools.paths, tools.config))
    told = doctor.collect(made) if arguments.json else doctor.describe(made, width_of(sys.stdout))
    sys.stdout.write(printed(told))
    return doctor.exit_status(made)


def width_of(stream: TextIO) -> int | None:
    """Columns of a terminal, UNTOLD where it does not tell as Docker's at its beginning, None where it is none."""
    return (os.get_terminal_size(stream.fileno()).columns or UNTOLD) if stream.isatty() else None


def write_bundle(tools: Tools, arguments: argparse.Namespace) -> int:
    """Gather everything, whatever fails of it, and write it to the file or standard output that was named."""
    from driverctr import bundlenode, bundleparts

    to_stdout = arguments.bundle == STANDARD_OUTPUT
    if to_stdout and sys.stdout.isatty():
        raise DriverError(
            Code.BAD_USAGE,
            "--bundle -: standard output is a terminal",
            "Send it to a file: driverctr doctor --bundle - > bundle.tar.gz",
        )
    refused, given = getattr(arguments, "refused", None), getattr(arguments, "given", {})
    scene = bundleparts.Scene(tools, refused, given)
    members = bundle.gather((*bundleparts.PARTS, *bundlenode.PARTS), scene)
    now = time.time()
    folder = f"driverctr-{os.uname().nodename}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    if to_stdout:
        bundle.pack(members, folder, now, sys.stdout.buffer)
        return 0
    path = Path(arguments.bundle)
    bundle.save(members, folder, now, path)
    lacking = [member.name for member in members if member.note.startswith(bundle.FAILED)]
    failed = f"{bundle.FAILED}, see {bundle.INDEX}: {', '.join(lacking)}\n" if lacking else ""
    sys.stdout.write(printed(f"{path}: {len(members)} parts, {path.stat().st_size / 1e3:.0f} kB\n{failed}"))
    return 0
