"""`driverctr status` and `driverctr doctor`, for people and for programs."""

import time
from collections.abc import Sequence
from typing import Any

from driverctr import daemons, markers, nextkernels, pidlock, status, verify
from driverctr.facts import gpus, holders, modules, processes, tasks
from driverctr.files import read_text
from driverctr.mounts import driverroot
from driverctr.paths import Paths
from driverctr.verify import Finding


def collect_status(paths: Paths) -> dict[str, Any]:
    """The status document beside what the kernel says at this moment."""
    running = daemons.find_all(paths)
    ours = [found.identity for found in running]
    stack, users = holders.settled(paths, ours, modules.read_stack(paths))
    used = holders.in_use(stack, users, ours, processes.blindness(paths))
    root = driverroot.state(paths)
    unsettled = modules.unsettled(stack)
    words = {name: read_text(paths.run / name) for name in (markers.DAEMONS, markers.CONTAINER, markers.DIGEST)}
    document = status.read(paths)
    differences = look(paths, document)
    return {
        "schema": status.SCHEMA,
        "phase": document["phase"] if document else "not running",
        "ready": document is not None and is_ready(paths, document, differences),
        "problems": [{"code": one.code.value, "message": one.text} for one in differences if not one.serves],
        "degraded": [one.text for one in differences if one.serves],
        "start": document,
        "modules": {
            module.name: {
                "version": module.version,
                "state": module.state,
                "refcnt": module.refcnt,
                "holders": list(module.holders),
                "build_id": module.build_id,
            }
            for module in stack.values()
        },
        "stuck": tasks.describe_stuck(unsettled, tasks.hanging_module_tools(paths)) if unsettled else "",
        "gpus": [
            {"address": gpu.address, "id": f"10de:{gpu.device_id:04x}", "driver": gpu.driver}
            for gpu in gpus.read(paths)
        ],
        "users": [{**holder.as_dict(), "ours": holder.identity in ours} for holder in users],
        "in_use": [use.as_dict() for use in used],
        "daemons": {found.daemon.name: found.pid for found in running},
        "driver_root": {"layers": len(root.layers), "ours": root.ours},
        "markers": {name: text for name, text in words.items() if text is not None},
    }


def look(paths: Paths, document: dict[str, Any] | None) -> list[Finding]:
    """What differs at this moment from what the start found when it became ready; nothing where it did not."""
    try:
        return verify.look(paths, verify.recall(document["expected"])) if document and document["expected"] else []
    except (KeyError, TypeError):
        return []


def is_ready(paths: Paths, document: dict[str, Any], found: Sequence[Finding]) -> bool:
    """The kernel's truth at this moment: a start that became ready lives, and what it checked still holds.

    The markers are no proof: a crash leaves them, and the operator's preStop takes them from a driver that serves.
    """
    was_ready = document["phase"] in (status.Phase.READY, status.Phase.NOT_READY) and bool(document.get("expected"))
    return was_ready and pidlock.is_held(paths.pid_file) and all(finding.serves for finding in found)


def format_status(found: dict[str, Any]) -> str:
    """One screen."""
    start = found["start"] or {}
    lines = [("phase", found["phase"]), ("ready", "yes" if found["ready"] else "no")]
    if start:
        lines.append(("driver", f"{start['driver_version']} ({start['module_type']}) for {start['kernel_release']}"))
        lines.append(("modules from", start["modules_from"] or "-"))
    for name, module in found["modules"].items():
        by = f", held by {' '.join(module['holders'])}" if module["holders"] else ""
        lines.append(("module", f"{name} {module['version']} {module['state']}, refcnt {module['refcnt']}{by}"))
    if found["stuck"]:
        lines.append(("stuck", found["stuck"]))
    for gpu in found["gpus"]:
        lines.append(("gpu", f"{gpu['address']} {gpu['id']} bound to {gpu['driver'] or 'nothing'}"))
    lines += [("daemon", f"{name} (pid {pid})") for name, pid in found["daemons"].items()]
    lines += [("in use", use["sentence"]) for use in found["in_use"]]
    root = found["driver_root"]
    lines.append(("driver root", f"{root['layers']} mounted" if root["layers"] else "not mounted"))
    lines += [("marker", f"{name}: {' '.join(text.split())}") for name, text in found["markers"].items()]
    lines += [("problem", f"{problem['code']}: {problem['message']}") for problem in found["problems"]]
    heard = dict.fromkeys(problem.get("kernel_log", "") for problem in start.get("problems", ()))
    lines += [("kernel log", words) for words in heard if words]
    lines += [("degraded", reason) for reason in dict.fromkeys([*found["degraded"], *start.get("degraded", ())])]
    lines += [("lost", state) for state in start.get("lost", ())]
    if start.get("kept"):
        lines.append(("kept", ", ".join(start["kept"])))
    lines += [("kernel", nextkernels.format_row(row)) for row in found.get("kernels", ())]
    if start.get("last_check"):
        lines.append(("last check", f"{time.time() - start['last_check']:.0f} s ago"))
    if start.get("steps"):
        lines.append(("steps", ", ".join(f"{step['name']} {step['seconds']:.2f} s" for step in start["steps"])))
    if start.get("failure"):
        lines.append(("failure", f"{start['failure']['code']}: {start['failure']['message']}"))
        lines.append(("remedy", start["failure"]["remedy"] or "-"))
    return "".join(f"{name + ':':14}{text}\n" for name, text in lines)
