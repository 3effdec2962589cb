"""The check that ready depends on: what the kernel says, against what we placed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from driverctr import daemons, devices, parameters
from driverctr.config import Depth
from driverctr.daemons import Running
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.paths import Paths
from driverctr.run import Runner

SMI_NO_DEVICES = 6
SMI_MISMATCH = 18
"""nvidia-smi(1), "RETURN VALUE", and NVML's own: 6 no devices, 18 library and driver do not match."""


@dataclass(frozen=True)
class Expected:
    """What must be so: version, per module the build-id of our file and the parameters asked, daemons that live."""

    driver_version: str
    build_ids: Mapping[str, str]
    parameters: Mapping[str, Sequence[str]]
    running: tuple[Running, ...] = ()


def check(paths: Paths, expected: Expected, depth: Depth, runner: Runner, limit: float) -> None:
    """Ask the kernel; raises DriverError (not-ready, gpu-init-failed) that names everything that differs."""
    problems = check_modules(paths, expected)
    if depth is not Depth.MODULES:
        problems += check_devices(paths, expected)
    if problems:
        raise DriverError(
            Code.NOT_READY,
            "the driver is not as wanted: " + "; ".join(problems),
            "See `driverctr status`; a restart of the container loads it anew",
        )
    if depth is Depth.SMI:
        check_smi(runner, limit)


def check_modules(paths: Paths, expected: Expected) -> list[str]:
    """Each module live, of our version, and the very build of our file; parameters as asked."""
    problems = []
    for name, build_id in expected.build_ids.items():
        loaded = modules.read(paths, name.replace("-", "_"))
        if loaded is None:
            problems.append(f"{name} is not loaded")
        elif loaded.state != "live":
            problems.append(f"{name} is {loaded.state}")
        elif loaded.version != expected.driver_version:
            problems.append(f"{name} is version {loaded.version}, not {expected.driver_version}")
        elif loaded.build_id != build_id:
            problems.append(f"{name} is another build (build-id {loaded.build_id[:12]}, ours {build_id[:12]})")
        else:
            problems += [
                f"{name} {difference}"
                for difference in parameters.differing(paths, name, expected.parameters.get(name, ()))
            ]
    return problems


def check_devices(paths: Paths, expected: Expected) -> list[str]:
    """Device nodes with the kernel's numbers, and daemons alive."""
    problems = [f"/dev/{node.name} is missing" for node in devices.missing(paths, devices.wanted(paths))]
    problems += [
        f"{running.daemon.name} (pid {running.pid}) is gone"
        for running in expected.running
        if daemons.find(paths, running.daemon) != running
    ]
    return problems


def check_smi(runner: Runner, limit: float) -> None:
    """nvidia-smi must exit 0, as the operator's probe demands; raises DriverError in words for each known status."""
    result = runner.run([Path("nvidia-smi")], limit=limit, check=False)
    if result.status == 0:
        return
    if result.status == SMI_NO_DEVICES:
        raise DriverError(
            Code.GPU_INIT_FAILED,
            f"the driver is loaded, but no GPU could be initialised (nvidia-smi: {result.words})",
            "Look for NVRM and Xid lines in the kernel log: the GPU, its power, its firmware or its slot",
        )
    if result.status == SMI_MISMATCH:
        raise DriverError(
            Code.NOT_READY,
            f"userspace and kernel modules are of different versions (nvidia-smi: {result.words})",
            "Use an image whose userspace is of the loaded modules' version",
        )
    raise DriverError(
        Code.NOT_READY, f"nvidia-smi failed with exit status {result.status}: {result.words}", "See the kernel log"
    )
