"""Whether the driver serves at this moment, by the kernel's word: the one answer of status, probes and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from driverctr import pidlock, status
from driverctr.facts import containers, processes
from driverctr.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from driverctr.facts.gpus import Gpu
    from driverctr.verify import Expected, Finding

NOT_RUNNING = "not running"
CRASHED = "crashed"
"""Phases that no document has: there is none, or who wrote it is dead and had not come to an end."""

ENDS = (status.Phase.STOPPED, status.Phase.FAILED, status.Phase.STUCK)
"""Phases after which the process ends by itself."""


def look(paths: Paths, document: Mapping[str, Any] | None, seen: Sequence[Gpu] | None = None) -> list[Finding]:
    """What differs at this moment from what the start found when it became ready; nothing where it did not.

    `seen` are the GPUs, if they were just read.
    """
    wish = _wish(document)
    if wish is None:
        return []
    from driverctr import verify
    from driverctr.depth import Depth

    return verify.look(paths, wish, Depth.DEVICES, seen)


def _wish(document: Mapping[str, Any] | None) -> Expected | None:
    """What must be so; None where that was not told yet, or by another release in words that are not ours."""
    if not document or not document.get("expected"):
        return None
    from driverctr import verify

    try:
        return verify.recall(document["expected"])
    except TypeError:
        return None


def is_ready(paths: Paths, document: Mapping[str, Any], found: Sequence[Finding]) -> bool:
    """The kernel's truth at this moment: a start that became ready lives, and what it checked still holds.

    The markers are no proof: a crash leaves them, and the operator's preStop takes them from a driver that serves.
    """
    was_ready = document["phase"] in (status.Phase.READY, status.Phase.NOT_READY) and _wish(document) is not None
    return (
        was_ready and pidlock.is_held(paths.pid_file, paths.proc / "locks") and all(finding.serves for finding in found)
    )


def lives(paths: Paths, document: Mapping[str, Any] | None) -> bool | None:
    """Whether a process holds the lock; None where one could that we do not see, in another PID namespace."""
    if pidlock.holder(paths.pid_file, paths.proc / "locks") is not None:
        return True
    try:
        namespace = str((paths.proc / "self/ns/pid").readlink())
    except OSError:
        namespace = processes.HOST_PID_NAMESPACE
    if document is None or namespace == processes.HOST_PID_NAMESPACE:
        return False
    own = containers.own_id(paths)
    return False if own and own == document.get("container") else None


def phase_of(document: Mapping[str, Any] | None, alive: bool | None) -> str:
    """Where the lifecycle is; a document's own word counts only while its writer lives, or once it has ended."""
    if document is None:
        return status.Phase.STARTING.value if alive else NOT_RUNNING
    phase = str(document["phase"])
    return CRASHED if alive is False and phase not in ENDS else phase
