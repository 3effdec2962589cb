"""What `driverctr status` tells: the status document beside what the kernel says at this moment.

Each part imports what it needs when it has something to tell: on most nodes `status` is asked for every few seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from driverctr import daemons, markers, pidlock, status, truth
from driverctr.facts import gpus, modules, pciids
from driverctr.files import read_text
from driverctr.mounts import rootstate
from driverctr.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from driverctr.facts.gpus import Gpu
    from driverctr.facts.modules import LoadedModule

SCHEMA = 2
"""Raised where a property goes or means something else; not where one comes. 1 was never described in a schema."""

DEFAULT_STORE = Path("/var/lib/driverctr/store")
"""The default of STORE_DIR, told from the settings by a test: to read those takes longer than all else here."""

MARKERS = (markers.DAEMONS, markers.CONTAINER, markers.DIGEST)
OPEN_SOURCE = "Open Kernel Module"
"""In the first line of /proc/driver/nvidia/version where the modules are those of the open source."""


def collect(paths: Paths, environment: Mapping[str, str]) -> dict[str, Any]:
    """Everything, as status.schema.json describes it; `environment` are the settings of who asks."""
    document = status.read(paths)
    alive = truth.lives(paths, document)
    seen = gpus.read(paths)
    differences = truth.look(paths, document, seen)
    phase = truth.phase_of(document, alive)
    start: Mapping[str, Any] = document or {}
    stack: Mapping[str, LoadedModule] = modules.read_stack(paths)
    running = daemons.find_all(paths)
    stack, users, used = _use(paths, stack, [found.identity for found in running])
    kept = _kept(paths, start, environment, seen)
    return {
        "schema": SCHEMA,
        "time": time.time(),
        "phase": phase,
        "since": start.get("since") if phase != truth.CRASHED else None,
        "ready": document is not None and truth.is_ready(paths, document, differences),
        "process": {"pid": pidlock.holder(paths.pid_file, paths.proc / "locks"), "alive": alive},
        "step": start.get("step", ""),
        "attempt": start.get("attempt", 1),
        "next_try": start.get("next_try") if phase == status.Phase.RETRYING else None,
        "driver": {"wanted": _wanted(start), "loaded": _loaded(paths, stack, start)},
        "kernel": {
            "release": read_text(paths.proc / "sys/kernel/osrelease") or "",
            "version": read_text(paths.proc / "sys/kernel/version") or "",
        },
        "gpus": _gpus(paths, start, seen),
        "modules": {module.name: _module(module) for module in stack.values()},
        "stuck": _stuck(paths, stack),
        "users": users,
        "in_use": used,
        "daemons": {found.daemon.name: found.pid for found in running},
        "driver_root": _driver_root(paths),
        "markers": {name: text for name in MARKERS if (text := read_text(paths.run / name)) is not None},
        **kept,
        "pending": start.get("pending", ""),
        "rollback": start.get("rollback", ""),
        "problems": [{"code": one.code.value, "message": one.text} for one in differences if not one.serves],
        "degraded": list(dict.fromkeys([*(one.text for one in differences if one.serves), *start.get("degraded", ())])),
        "failure": start.get("failure") or None,
        "last_failure": start.get("last_failure") or None,
        "last_check": start.get("last_check"),
        "start": document,
    }


def _wanted(start: Mapping[str, Any]) -> dict[str, str]:
    """What the start came to want; empty words where it has not come to it."""
    return {
        "version": start.get("driver_version", ""),
        "module_type": start.get("module_type", ""),
        "kernel_release": start.get("kernel_release", ""),
        "modules_from": start.get("modules_from", ""),
    }


def _loaded(paths: Paths, stack: Mapping[str, LoadedModule], start: Mapping[str, Any]) -> dict[str, Any] | None:
    """The core module as the kernel has it; `ours` where it is the very build that the start checked."""
    core = stack.get(modules.CORE)
    if core is None:
        return None
    told = (read_text(paths.proc / "driver/nvidia/version") or "").partition("\n")[0]
    expected = ((start.get("expected") or {}).get("build_ids") or {}).get(modules.CORE)
    return {
        "version": core.version,
        "module_type": ("open" if OPEN_SOURCE in told else "proprietary") if told else "",
        "build_id": core.build_id,
        "ours": None if expected is None else expected == core.build_id,
    }


def _module(module: LoadedModule) -> dict[str, Any]:
    return {
        "version": module.version,
        "state": module.state,
        "refcnt": module.refcnt,
        "holders": list(module.holders),
        "build_id": module.build_id,
    }


def _gpus(paths: Paths, start: Mapping[str, Any], found: tuple[Gpu, ...]) -> list[dict[str, Any]]:
    names = pciids.names(paths, gpus.VENDOR_NVIDIA, {gpu.device_id for gpu in found})
    answering = start.get("gpus_answering") or {}
    return [
        {
            "address": gpu.address,
            "id": f"{gpus.VENDOR_NVIDIA:04x}:{gpu.device_id:04x}",
            "name": names.get(gpu.device_id, ""),
            "driver": gpu.driver,
            "answers": answering.get(gpu.address),
        }
        for gpu in found
    ]


def _use(
    paths: Paths, stack: Mapping[str, LoadedModule], ours: list[tuple[int, int]]
) -> tuple[Mapping[str, LoadedModule], list[dict[str, Any]], list[dict[str, Any]]]:
    """Who holds the driver, ours among them, and what keeps it from being unloaded; the modules as read meanwhile."""
    if not any(module.handles for module in stack.values()):
        return stack, [], []
    from driverctr.facts import holders, processes

    stack, users = holders.settled(paths, ours, stack, own_first=True)
    used = holders.in_use(stack, users, ours, processes.blindness(paths))
    told = [{**holder.as_dict(), "ours": holder.identity in ours} for holder in users]
    return stack, told, [use.as_dict() for use in used]


def _stuck(paths: Paths, stack: Mapping[str, LoadedModule]) -> str:
    unsettled = modules.unsettled(stack)
    if not unsettled:
        return ""
    from driverctr.facts import tasks

    return tasks.describe_stuck(unsettled, tasks.hanging_module_tools(paths))


def _driver_root(paths: Paths) -> dict[str, Any]:
    try:
        root = rootstate.read(paths)
    except OSError:
        return {"layers": None, "ours": False}
    return {"layers": len(root.layers), "ours": root.ours}


def _kept(
    paths: Paths, start: Mapping[str, Any], environment: Mapping[str, str], seen: tuple[Gpu, ...]
) -> dict[str, Any]:
    """What the store tells, and what the host's kernels will find: the settings are read only where there is either."""
    told = {"result": start.get("store", ""), "reason": start.get("store_reason", "")}
    nothing: dict[str, Any] = {
        "store": {**told, "folder": "", "entries": None, "bytes": None},
        "kernels": [],
        "steps": [{**step, "median": None} for step in start.get("steps", ())],
        "refused_settings": [],
    }
    environment = _environment(paths, environment)
    if not _has_store(paths, environment) and not _has_kernels(paths):
        return nothing
    from driverctr import statusstore

    return nothing | statusstore.collect(paths, environment, start, told, seen)


def _has_store(paths: Paths, environment: Mapping[str, str]) -> bool:
    name = environment.get("STORE_DIR") or str(DEFAULT_STORE)
    is_elsewhere = bool(environment.get("STORE_ON_HOST")) or not name.startswith("/")
    return is_elsewhere or os.path.isdir(f"{paths.root}/{name}")  # noqa: PTH112  # cheap


def _has_kernels(paths: Paths) -> bool:
    from driverctr.facts import installed

    try:
        return bool(installed.read(paths))
    except OSError:  # the root of a process that is gone, or that we may not look into
        return False


def _environment(paths: Paths, own: Mapping[str, str]) -> Mapping[str, str]:
    """The settings of the container that runs, for who looks at it from elsewhere."""
    if not paths.are_elsewhere():
        return own
    from driverctr import instance
    from driverctr.errors import DriverError

    try:
        return instance.environment(paths)
    except DriverError:
        return own
