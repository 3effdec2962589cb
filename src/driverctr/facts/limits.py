"""How much of the machine is ours: CPU quota and memory of our control group."""

import os
import re
from math import ceil
from pathlib import Path

from driverctr.files import read_text
from driverctr.records import frozen

JOB_MEMORY = 512 * 1024 * 1024
"""Bytes one compiler job may need: cc1 on the largest files of 535 peaks near 240 MB, the final link near 400."""


@frozen
class Limits:
    """CPUs we may use at once and bytes of memory we may take."""

    cpus: int
    memory: int

    def jobs(self, at_most: int | None = None) -> int:
        """How many compiler jobs fit; `at_most` is the user's own bound."""
        fitting = max(1, min(self.cpus, self.memory // JOB_MEMORY))
        return min(fitting, at_most) if at_most else fitting


def read(root: Path = Path("/")) -> Limits:
    """What the scheduler, the control group (version 2 or 1) and the machine's free memory leave us."""
    cpus = [len(os.sched_getaffinity(0)), *_cpu_quotas(root)]
    return Limits(max(1, min(cpus)), min([_available(root), *_memory_limits(root)]))


def _groups(root: Path) -> dict[str, str]:
    """Our control group path per controller; version 2 stands under the empty name (cgroups(7))."""
    lines = (read_text(root / "proc/self/cgroup") or "").splitlines()
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return {name: path for _, names, path in fields for name in names.split(",")}


def _above(base: Path, group: str) -> list[Path]:
    """Our group's folder and those above it: the strictest limit on the way binds."""
    folder = base / group.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent == base or base in parent.parents)]


def _cpu_quotas(root: Path) -> list[int]:
    """CPUs each quota allows, rounded up."""
    base, groups = root / "sys/fs/cgroup", _groups(root)
    pairs = [(read_text(folder / "cpu.max") or "").split() for folder in _above(base, groups.get("", "/"))]
    for folder in _above(base / "cpu", groups.get("cpu", "/")):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        pairs.append([read_text(folder / name) or "" for name in names])
    whole = [pair for pair in pairs if len(pair) == 2 and all(part.isdecimal() for part in pair)]
    return [max(1, ceil(int(quota) / int(period))) for quota, period in whole if int(period)]


def _memory_limits(root: Path) -> list[int]:
    """Bytes each memory limit leaves beyond what its group already uses and cannot give back."""
    base, groups = root / "sys/fs/cgroup", _groups(root)
    files = [(folder, "memory.max", "memory.current") for folder in _above(base, groups.get("", "/"))]
    for folder in _above(base / "memory", groups.get("memory", "/")):
        files.append((folder, "memory.limit_in_bytes", "memory.usage_in_bytes"))
    left: list[int] = []
    for folder, limit_name, usage_name in files:
        limit = read_text(folder / limit_name) or ""
        if limit.isdecimal():
            used = int(read_text(folder / usage_name) or 0) - _reclaimable(folder)
            left.append(max(0, int(limit) - max(0, used)))
    return left


def _reclaimable(folder: Path) -> int:
    """Bytes of page cache the kernel would give up under pressure."""
    found = re.search(r"^inactive_file (\d+)$", read_text(folder / "memory.stat") or "", re.MULTILINE)
    return int(found.group(1)) if found else 0


def _available(root: Path) -> int:
    """MemAvailable in bytes; without /proc enough for one job a CPU."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", read_text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) * 1024 if found else JOB_MEMORY * (os.cpu_count() or 1)
