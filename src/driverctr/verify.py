"""The check that ready depends on: what the kernel says, against what we placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from driverctr import daemons, devices, firmware, parameters
from driverctr.daemons import Running
from driverctr.depth import Depth
from driverctr.errors import Code, DriverError
from driverctr.facts import gpus, modules
from driverctr.facts.gpus import Gpu
from driverctr.mounts import rootstate
from driverctr.paths import Paths
from driverctr.records import asdict, field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Part(StrEnum):
    """What a finding is about."""

    MODULE = "module"
    PARAMETER = "parameter"
    NODE = "node"
    DAEMON = "daemon"
    GPU = "gpu"
    ROOT = "root"
    FIRMWARE = "firmware"


@frozen
class Finding:
    """Something that is not as wanted: about what, in words, and whether the driver serves all the same.

    `gone` tells what is absent from what is there but different: only the absent is put back while we wait.
    """

    part: Part
    subject: str
    text: str
    serves: bool = False
    gone: bool = False
    code: Code = Code.NOT_READY


@frozen
class Expected:
    """What must be so: version, per module the build-id of our file and the parameters asked, daemons that live,
    the GPUs that were bound to the driver when it became ready, how many of them must stay, the driver root, and the
    kernel's search path for firmware; `lacks` tells of modules asked for beside why they are not there."""

    driver_version: str
    build_ids: Mapping[str, str]
    parameters: Mapping[str, Sequence[str]]
    running: tuple[Running, ...] = ()
    gpus: tuple[str, ...] = ()
    least_gpus: int | None = None
    root: bool = False
    firmware_path: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the status document, from which `recall` makes it again; daemons come and go, and are left out."""
        document = asdict(self)
        del document["running"]
        return document


def recall(document: Mapping[str, Any]) -> Expected:
    """What a status document says must be so; raises TypeError for a document that is not ours."""
    words: dict[str, Any] = {**document, "gpus": tuple(document.get("gpus", ()))}
    return Expected(**words)


def look(
    paths: Paths, expected: Expected, depth: Depth = Depth.DEVICES, seen: Sequence[Gpu] | None = None
) -> list[Finding]:
    """Everything that differs, asked of the kernel alone: no GPU is woken, and depth smi looks no further here.

    `seen` are the GPUs, if they were just read.
    """
    found = check_modules(paths, expected) + check_beside(paths, expected)
    if depth is not Depth.MODULES:
        found += check_devices(paths, expected)
    found += check_gpus(paths, expected, gpus.read(paths) if seen is None else seen)
    if expected.root:
        found += check_root(paths)
    return found + check_firmware(paths, expected)


def refuse(found: Sequence[Finding]) -> None:
    """Raise DriverError that names everything because of which the driver does not serve; nothing if it does."""
    serious = [finding for finding in found if not finding.serves]
    if serious:
        raise DriverError(
            serious[0].code,
            "the driver is not as wanted: " + "; ".join(finding.text for finding in serious),
            "See `driverctr status`; a restart of the container loads it anew",
        )


def check_modules(paths: Paths, expected: Expected) -> list[Finding]:
    """Each module live, of our version, and the very build of our file; parameters as asked."""
    found = []
    for name, build_id in expected.build_ids.items():
        loaded = modules.read(paths, modules.kernel_name(name))
        if loaded is None:
            found.append(Finding(Part.MODULE, name, f"{name} is not loaded", gone=True))
        elif loaded.state != "live":
            found.append(Finding(Part.MODULE, name, f"{name} is {loaded.state}"))
        elif loaded.version != expected.driver_version:
            text = f"{name} is version {loaded.version}, not {expected.driver_version}"
            found.append(Finding(Part.MODULE, name, text, code=Code.OTHER_VERSION))
        elif loaded.build_id != build_id:
            text = f"{name} is another build (build-id {loaded.build_id[:12]}, ours {build_id[:12]})"
            found.append(Finding(Part.MODULE, name, text))
        else:
            found += [
                Finding(Part.PARAMETER, name, f"{name} {difference}", serves=True)
                for difference in parameters.differing(paths, name, expected.parameters.get(name, ()))
            ]
    return found


def check_beside(paths: Paths, expected: Expected) -> list[Finding]:
    """A module that the driver serves without is missed until somebody loads it (NVIDIA's sidecar for peermem)."""
    return [
        Finding(Part.MODULE, name, why, serves=True)
        for name, why in expected.lacks.items()
        if modules.read(paths, modules.kernel_name(name)) is None
    ]


def check_devices(paths: Paths, expected: Expected) -> list[Finding]:
    """Device nodes with the kernel's numbers, and daemons alive."""
    found = [
        Finding(Part.NODE, node.name, f"/dev/{node.name} is missing or has another number", gone=True)
        for node in devices.missing(paths, devices.wanted(paths))
    ]
    return found + [
        Finding(Part.DAEMON, running.daemon.name, f"{running.daemon.name} (pid {running.pid}) is gone", gone=True)
        for running in expected.running
        if daemons.find(paths, running.daemon) != running
    ]


def check_gpus(paths: Paths, expected: Expected, seen: Sequence[Gpu]) -> list[Finding]:
    """Every GPU that served is still on the bus and bound to the driver; one given to a virtual machine is not missed.

    The driver serves all the same while enough are left. While the core module is gone nothing can be bound to it.
    """
    if modules.read(paths, modules.CORE) is None:
        return []
    now = {gpu.address: gpu for gpu in seen}
    given = [address for address in expected.gpus if address in now and now[address].taken_by not in ("", gpus.NOUVEAU)]
    serving = [address for address in expected.gpus if address in now and now[address].driver == modules.CORE]
    least = len(expected.gpus) - len(given) if expected.least_gpus is None else expected.least_gpus
    enough = len(serving) >= least
    found = [
        Finding(Part.GPU, address, f"GPU {address} was given to {now[address].taken_by}", serves=enough)
        for address in given
    ]
    for address in expected.gpus:
        if address not in now:
            text = f"GPU {address} has vanished from the bus"
            found.append(Finding(Part.GPU, address, text, serves=enough, code=Code.GPU_LOST))
        elif address not in given and address not in serving:
            text = f"GPU {address} is bound to {now[address].driver or 'no driver'}"
            found.append(Finding(Part.GPU, address, text, serves=enough, code=Code.GPU_LOST))
    return found


def check_firmware(paths: Paths, expected: Expected) -> list[Finding]:
    """The search path is as it was: GPUs that run go on without it, the next one to be opened may not start."""
    path = firmware.read_path(paths)
    if not expected.firmware_path or path == expected.firmware_path:
        return []
    text = f"the firmware search path is {path or 'blank'}, not {expected.firmware_path}"
    return [Finding(Part.FIRMWARE, firmware.PARAMETER, text, serves=True, gone=not path)]


def check_root(paths: Paths) -> list[Finding]:
    """Our root exported once; a tree of somebody else is told from none, or a second of ours."""
    where = paths.driver_root
    try:
        state = rootstate.read(paths)
    except OSError as error:
        return [Finding(Part.ROOT, str(where), f"the mount table cannot be read: {error.strerror}")]
    if state.settled:
        return []
    if not state.layers:
        return [Finding(Part.ROOT, str(where), f"nothing is mounted at {where}", gone=True)]
    if state.ours:
        return [Finding(Part.ROOT, str(where), f"{where} holds our root, but not once and shared", gone=True)]
    return [Finding(Part.ROOT, str(where), f"{where} holds a tree that is not ours ({state.layers[-1].source})")]
