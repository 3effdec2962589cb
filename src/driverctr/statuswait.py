"""Wait until the driver is ready: by the kernel's word of what changes in our folders, not by looking now and then."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from driverctr import markers, pidfd, pidlock, status, statustext, truth, vantage
from driverctr.inotify import Watcher
from driverctr.paths import Paths


def wait(root: Path, seconds: float) -> bool:
    """Whether the driver became ready within so many seconds; one that is ready already is at once.

    Each look is from where its container is to be seen then: it may be another one than ours, that comes while we wait.

    Every change of what readiness depends on is told by the container that runs, in its document or its markers, or is
    its end. Raises OSError where nothing can be watched.
    """
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        watcher = Watcher()
        stack.callback(watcher.close)
        while True:
            watcher.drain()
            paths = vantage.find(root)
            for folder in (paths.own_run, (paths.run / markers.CONTAINER).parent):
                _watch(watcher, folder)
            # Looked at after the watches are set: what comes in between is told.
            if is_ready(vantage.find(root)):
                return True
            with ExitStack() as moment:
                ends = list(_end(paths, moment))
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([watcher.fileno(), *ends], [], [], left)[0]:
                    return is_ready(vantage.find(root))


def is_ready(paths: Paths) -> bool:
    """By the kernel's truth at this moment."""
    document = status.read(paths)
    return document is not None and truth.is_ready(paths, document, truth.look(paths, document))


def describe(view: Mapping[str, Any], seconds: float) -> str:
    """Why it is not ready, in one line: phase, step, attempt, and what failed."""
    why = [f"not ready after {statustext.span(seconds)}: {statustext.describe_phase(view)}"]
    why += [statustext.UNSEEN] if view["process"]["alive"] is None else []
    why += [f"{problem['code']}: {problem['message']}" for problem in view["problems"]]
    if failure := view["failure"]:
        why.append(f"{failure['code']}: {failure['message']}. {failure['remedy']}")
    return "; ".join(why)


def _watch(watcher: Watcher, folder: Path) -> None:
    """Watch a folder; while it is not there that above it, where it will come: a start makes what is missing."""
    if watcher.watch(folder) or folder == folder.parent:
        return
    _watch(watcher, folder.parent)
    watcher.watch(folder)  # it may have come in between


def _end(paths: Paths, stack: ExitStack) -> Iterator[int]:
    """A descriptor that is readable once the process ends that holds the lock, if one does."""
    pid = pidlock.holder(paths.pid_file, paths.proc / "locks")
    if pid is None:
        return
    try:
        descriptor = pidfd.opened(pid)
    except OSError:
        return
    stack.callback(os.close, descriptor)
    yield descriptor
