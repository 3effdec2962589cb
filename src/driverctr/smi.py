"""nvidia-smi: whether the GPUs answer, and what of their state a reload of the driver loses."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from driverctr.deferred import pattern
from driverctr.errors import Code, DriverError
from driverctr.records import frozen
from driverctr.run import Result, Runner
from driverctr.settings import GpuNeed

SMI = Path("nvidia-smi")

NO_DEVICES = 6
MISMATCH = 18
"""nvidia-smi(1), "RETURN VALUE", and NVML's own: 6 no devices, 18 library and driver do not match."""

STATE_LIMIT = 5.0
STATE_SHARE = 0.25
"""Seconds the state may take to read, all in all, and at a stop of what is left: it is only told, and waited for."""


def check(runner: Runner, limit: float, need: GpuNeed, ours: Sequence[str]) -> tuple[str, ...]:
    """nvidia-smi exits 0, as the operator's probe demands, and lists as many GPUs as must answer.

    `ours` are the PCI addresses of the GPUs that the driver should serve. Returns those that do not answer, where
    enough others do. Raises DriverError (gpu-init-failed, other-version, not-ready) that names the silent GPUs.
    """
    _judge(runner.run([SMI], limit=limit, check=False))
    return _judge_number(ours, list_answering(runner, limit), need)


def _judge(result: Result) -> None:
    if result.status == NO_DEVICES:
        raise DriverError(
            Code.GPU_INIT_FAILED,
            f"the driver is loaded, but no GPU could be initialised (nvidia-smi: {result.words})",
            "Look for NVRM and Xid lines in the kernel log: the GPU, its power, its firmware or its slot",
        )
    if result.status == MISMATCH:
        raise DriverError(
            Code.OTHER_VERSION,
            f"userspace and kernel modules are of different versions (nvidia-smi: {result.words})",
            "Use an image whose userspace is of the loaded modules' version",
        )
    if result.status != 0:
        raise DriverError(
            Code.NOT_READY, f"nvidia-smi failed with exit status {result.status}: {result.words}", "See the kernel log"
        )


def list_answering(runner: Runner, limit: float) -> list[str]:
    """The PCI addresses, as sysfs writes them, of the GPUs that nvidia-smi lists; raises DriverError (command-failed).

    `nvidia-smi --help-query-gpu`: pci.bus_id is "domain:bus:device.function", in hex.
    """
    result = runner.run([SMI, "--query-gpu=index,pci.bus_id", "--format=csv,noheader"], limit=limit)
    return re.findall(r"^\s*\d+,\s*(\S+)\s*$", as_sysfs(result.stdout), re.MULTILINE)


def as_sysfs(text: str) -> str:
    """nvidia-smi writes 00000000:3B:00.0, sysfs 0000:3b:00.0."""
    return re.sub(
        r"\b([0-9A-Fa-f]{4,8})(:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])\b",
        lambda found: f"{int(found[1], 16):04x}{found[2].lower()}",
        text,
    )


def _judge_number(present: Sequence[str], answering: Sequence[str], need: GpuNeed) -> tuple[str, ...]:
    wanted = need.of(len(present))
    silent = tuple(address for address in present if address not in answering)
    ours = len(set(present) & set(answering))
    if ours >= wanted:
        return silent
    who = f": no answer from {', '.join(silent)}" if silent else ""
    raise DriverError(
        Code.GPU_INIT_FAILED,
        f"nvidia-smi lists {ours} of {len(present)} GPUs, and {wanted} must answer{who}",
        "Look for NVRM and Xid lines in the kernel log; VERIFY_GPUS=any, or a number, lets the others serve",
    )


@frozen
class Field:
    """A state that ends with the driver: what nvidia-smi calls it, in words, and what it is without anybody's doing:
    a value, or (with `default_field`) the field that tells."""

    name: str
    words: str
    default: str = ""
    default_field: str = ""
    unit: str = ""


FIELDS = (
    Field("mig.mode.current", "MIG mode", default="Disabled"),
    Field("compute_mode", "compute mode", default="Default"),
    Field("power.limit", "power limit", default_field="power.default_limit", unit=" W"),
    Field("clocks.applications.graphics", "graphics clock", "", "clocks.default_applications.graphics", " MHz"),
    Field("clocks.applications.memory", "memory clock", "", "clocks.default_applications.memory", " MHz"),
    Field("accounting.mode", "accounting", default="Disabled"),
)
"""`nvidia-smi --help-query-gpu`. What outlives the driver, such as ECC, is not among them."""

UNKNOWN = pattern(r"\[|^$|N/A", re.IGNORECASE)
"""`[N/A]`, `[Not Supported]`, `[Unknown Error]`."""


def read_state(runner: Runner, limit: float = STATE_LIMIT) -> tuple[str, ...]:
    """What a reload would lose, one sentence a GPU, only where it differs from the defaults; within `limit` seconds.

    Whatever keeps nvidia-smi from telling is said at level debug, and is no failure.
    """
    deadline = time.monotonic() + limit
    names = ["pci.bus_id", *(f.name for f in FIELDS), *(f.default_field for f in FIELDS if f.default_field)]
    try:
        query: list[str | Path] = [SMI, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
        table = runner.run(query, limit=limit)
        rows = [dict(zip(names, line.split(", "), strict=False)) for line in as_sysfs(table.stdout).splitlines()]
        partitioned = any(row.get("mig.mode.current") == "Enabled" for row in rows)
        instances = _read_instances(runner, deadline) if partitioned else {}
    except DriverError as error:
        runner.log.debug(f"the GPUs' state is not known: {error.message}", code=error.code.value)
        return ()
    return tuple(line for row in rows if (line := _describe(row, instances)))


def _read_instances(runner: Runner, deadline: float) -> dict[str, int]:
    """MIG devices by PCI address: `nvidia-smi --list-gpus` writes them below their GPU, by index."""
    addresses = list_answering(runner, max(0.0, deadline - time.monotonic()))
    counts: dict[str, int] = {}
    current = ""
    listed = runner.run([SMI, "--list-gpus"], limit=max(0.0, deadline - time.monotonic()))
    for line in listed.stdout.splitlines():
        if found := re.match(r"GPU (\d+):", line):
            index = int(found[1])
            current = addresses[index] if index < len(addresses) else ""
        elif re.match(r"\s+MIG ", line):
            counts[current] = counts.get(current, 0) + 1
    return counts


def _describe(row: dict[str, str], instances: dict[str, int]) -> str:
    address = row["pci.bus_id"]
    parts = [f"{instances[address]} MIG devices"] if address in instances else []
    for field in FIELDS:
        value = row.get(field.name, "").strip()
        default = row.get(field.default_field, "").strip() if field.default_field else field.default
        if value != default and not UNKNOWN.search(value) and not UNKNOWN.search(default):
            usual = f" (default {default}{field.unit})" if field.default_field else ""
            parts.append(f"{field.words} {value}{field.unit}{usual}")
    return f"GPU {address}: {', '.join(parts)}" if parts else ""
