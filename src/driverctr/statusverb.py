"""`driverctr status`: print what is so, or wait until the driver is ready."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from driverctr import statusview, vantage
from driverctr.conceal import learn_environment, printed
from driverctr.errors import Code, DriverError, of_os
from driverctr.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from driverctr.steps import Tools

LIMIT = 300.0
"""Seconds to wait for, unless --timeout says otherwise."""

LOOKS = 3
"""How often a tree is read that changes meanwhile."""


def print_now(environment: Mapping[str, str], *, as_json: bool, paths: Paths | None = None) -> int:
    """Print what is so; exit status 0 if the driver is ready, else that of not-ready."""
    view = look(paths or vantage.find(), environment)
    _print(view, environment, as_json=as_json)
    return 0 if view["ready"] else Code.NOT_READY.exit_status


def look(paths: Paths, environment: Mapping[str, str]) -> Mapping[str, Any]:
    """What is so; a tree that changed while it was read, as where a container ends, is read again.

    Raises DriverError (node-file) where it cannot be read.
    """
    for _ in range(LOOKS - 1):
        try:
            return statusview.collect(paths, environment)
        except OSError:
            continue
    try:
        return statusview.collect(paths, environment)
    except OSError as error:
        raise of_os("status", error) from error


def show(tools: Tools, arguments: argparse.Namespace) -> int:
    """The same with flags; with --wait not before the driver is ready, or the time is over.

    Raises DriverError (bad-usage; node-file where nothing can be watched).
    """
    import signal

    from driverctr import statuswait, verbs

    root, environment = tools.paths.root, verbs.own_environment()
    if not arguments.wait:
        if arguments.timeout is not None:
            raise DriverError(
                Code.BAD_USAGE, "--timeout says how long to wait, and nothing is waited for", "Add --wait"
            )
        return print_now(environment, as_json=arguments.json, paths=vantage.find(root))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    limit = LIMIT if arguments.timeout is None else arguments.timeout
    try:
        is_ready = statuswait.wait(root, limit)
    except OSError as error:
        raise DriverError(
            Code.NODE_FILE,
            f"--wait: what changes on this node cannot be watched: {error.strerror or error}",
            "Where a limit is reached, raise fs.inotify.max_user_instances or max_user_watches (sysctl)",
        ) from error
    view = look(vantage.find(root), environment)
    _print(view, environment, as_json=arguments.json)
    if not is_ready:
        sys.stderr.write(printed(f"{statuswait.describe(view, limit)}\n"))
    return 0 if is_ready else Code.NOT_READY.exit_status


def _print(view: Mapping[str, Any], environment: Mapping[str, str], *, as_json: bool) -> None:
    learn_environment(environment)
    if as_json:
        sys.stdout.write(printed(view))
        return
    from driverctr import statustext, terminal

    screen = statustext.render(view, terminal.paint_for(sys.stdout, environment), terminal.width_of(sys.stdout))
    sys.stdout.write(printed(screen))
