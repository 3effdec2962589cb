"""What others may read: status.json while we live, the termination message when we end."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from enum import StrEnum

from driverctr.conceal import conceal, conceal_all
from driverctr.errors import DriverError
from driverctr.files import read_text, write_atomic
from driverctr.paths import Paths
from driverctr.records import asdict, field, frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
TERMINATION_LIMIT = 4096
"""Bytes Kubernetes keeps of /dev/termination-log (k8s.io: "Determine the reason for Pod failure")."""

ALWAYS = ("phase", "since", "pid")
KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("phase", "step", "store", "store_reason", "pending", "rollback", "modules_from"), str),
    **dict.fromkeys(("container", "driver_version", "module_type", "kernel_release"), str),
    **dict.fromkeys(("since", "started"), (int, float)),
    **dict.fromkeys(("last_check", "next_try"), (int, float, type(None))),
    **dict.fromkeys(("pid", "attempt", "daemon_restarts"), int),
    **dict.fromkeys(("steps", "degraded", "problems", "kept", "lost", "in_use"), list),
    **dict.fromkeys(("failure", "last_failure", "expected", "next_kernels", "notes", "gpus_answering"), dict),
}
"""What every document has, and of what kind each field is in JSON."""


class Phase(StrEnum):
    """Where the lifecycle is."""

    STARTING = "starting"
    WAITING_FOR_GPU = "waiting-for-gpu"
    RETRYING = "retrying"
    READY = "ready"
    NOT_READY = "not-ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    STUCK = "stuck"


@frozen
class StepTime:
    """A step done in this start, and its seconds."""

    name: str
    seconds: float
    outcome: str


@frozen
class Status:
    """The document at /run/nvidia/driverctr/status.json; times in seconds since the epoch.

    `pid`, `container` (its id, "" where nothing tells it) and `started` are of the process that holds the lock,
    `degraded` is what is not as wanted though the driver serves, `problems` why it does not; `expected` what must be so
    (verify.recall reads it), `kept` the steps that a stop left done, `lost` the state of GPUs that an unload took,
    `next_kernels` what is being built, or failed to build, for kernels that have not run yet.
    `attempt` counts the tries of this start, `next_try` is when the next one comes (phase retrying), `pending` why a
    reload waits, `rollback` what serves instead of what is wanted and why, `store` whether the modules were there (hit
    or miss, "" where it was not asked) and `store_reason` why not, `in_use` who uses a driver that has to go,
    `gpus_answering` which GPUs answered nvidia-smi when it was asked last, `last_failure` what is
    over: of a former attempt or start.
    """

    phase: Phase
    since: float
    pid: int
    container: str = ""
    started: float = 0.0
    driver_version: str = ""
    module_type: str = ""
    kernel_release: str = ""
    modules_from: str = ""
    step: str = ""
    steps: tuple[StepTime, ...] = ()
    daemon_restarts: int = 0
    failure: Mapping[str, Any] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    problems: tuple[Mapping[str, str], ...] = ()
    last_check: float | None = None
    expected: Mapping[str, Any] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    next_kernels: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    next_try: float | None = None
    pending: str = ""
    rollback: str = ""
    store: str = ""
    store_reason: str = ""
    in_use: tuple[Mapping[str, Any], ...] = ()
    gpus_answering: Mapping[str, bool] = field(default_factory=dict)
    last_failure: Mapping[str, Any] = field(default_factory=dict)

    def changed(self, **changes: Any) -> Status:
        """The same with these fields; in another phase from now on, if it is another."""
        if changes.get("phase", self.phase) is not self.phase:
            changes = {"since": time.time(), "step": "", "next_try": None, **changes}
        return replace(self, **changes)


def begin(paths: Paths) -> Status:
    """A start that begins now."""
    from driverctr.facts import containers  # here: who reads a document does without

    now = time.time()
    return Status(Phase.STARTING, now, os.getpid(), containers.own_id(paths), now)


def publish(paths: Paths, status: Status) -> None:
    """Write the document, with nothing secret in it; raises OSError.

    What must be so is compared with the kernel's word, and holds nothing that the kernel does not show to everybody.
    """
    document = {"schema": SCHEMA, **conceal_all(asdict(status)), "expected": status.expected}
    write_atomic(paths.status_file, json.dumps(document) + "\n")


def remove(paths: Paths) -> None:
    """After a clean stop nothing is left to tell, and no folder for it; raises OSError."""
    paths.status_file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        paths.own_run.rmdir()


def read(paths: Paths) -> dict[str, Any] | None:
    """The last document, or None where there is none or it is not ours."""
    try:
        document = json.loads(read_text(paths.status_file) or "")
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and _is_ours(document) else None


def _is_ours(document: Mapping[str, Any]) -> bool:
    """Whether it has what all of them have, and nothing of another kind than we write: it lies on the host."""
    return (
        document.get("schema") == SCHEMA
        and all(name in document for name in ALWAYS)
        and all(isinstance(document[name], kinds) for name, kinds in KINDS.items() if name in document)
    )


def describe_failure(error: DriverError) -> dict[str, str]:
    """Code, cause and remedy, as status and termination message carry them."""
    from driverctr.explain import remedy_for

    return {"code": error.code.value, "message": conceal(error.message), "remedy": conceal(remedy_for(error))}


def last_failure(document: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What went wrong last by a document of a start that is no more; empty where nothing did."""
    known = document or {}
    found = known.get("failure") or known.get("last_failure")
    return found if isinstance(found, dict) else {}


def failed_now(error: DriverError) -> dict[str, Any]:
    """The same for the status document, with its time."""
    return {**describe_failure(error), "at": time.time()}


def write_termination(paths: Paths, error: DriverError) -> None:
    """Leave one JSON line in /dev/termination-log if Kubernetes mounted one (it is bind-mounted: written in place).

    Where it cannot be written the log has to do: the failure it tells of counts, not its own.
    """
    if not paths.termination_log.is_file():
        return
    line, spare = "", TERMINATION_LIMIT
    while not line or len(line) > TERMINATION_LIMIT:
        words = {name: text[:spare] for name, text in describe_failure(error).items()}
        line = json.dumps({**words, "exit_status": error.code.exit_status}) + "\n"
        spare //= 2
    _write_in_place(paths, line)


def clear_termination(paths: Paths) -> None:
    """An attempt that failed is not why a container ends that became ready later."""
    if paths.termination_log.is_file():
        _write_in_place(paths, "")


def _write_in_place(paths: Paths, text: str) -> None:
    with contextlib.suppress(OSError), paths.termination_log.open("r+b", buffering=0) as file:
        file.truncate()
        file.write(text.encode())
