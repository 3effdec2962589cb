"""NVIDIA's device nodes, with the numbers the kernel gave out."""

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.facts import chardevs, modules
from driverctr.facts.chardevs import MINOR_CONTROL, MINOR_MODESET
from driverctr.files import entries, read_text
from driverctr.paths import Paths
from driverctr.records import frozen


@frozen
class Node:
    """A character device: path below /dev, major, minor, permissions."""

    name: str
    major: int
    minor: int
    mode: int
    owner: tuple[int, int] = (0, 0)


def wanted(paths: Paths) -> tuple[Node, ...]:
    """The nodes the loaded modules stand behind; nothing where nvidia is not loaded, or makes its nodes elsewhere."""
    majors = _majors(paths)
    core = majors.get("nvidia-frontend", majors.get("nvidia"))
    if core is None:
        return ()
    params = modules.read_driver_parameters(paths)
    mode = int(params.get("NVreg_DeviceFileMode", "438"))
    owner = int(params.get("NVreg_DeviceFileUID", "0")), int(params.get("NVreg_DeviceFileGID", "0"))
    nodes = [Node("nvidiactl", core, MINOR_CONTROL, mode, owner)]
    nodes += [Node(f"nvidia{minor}", core, minor, mode, owner) for minor in _gpu_minors(paths)]
    if "nvidia-uvm" in majors:
        # For everyone, whatever NVreg_DeviceFile* say: nvidia-modprobe asks no parameters for these
        # (nvidia_uvm_mknod in its nvidia-modprobe-utils.c).
        nodes += [
            Node("nvidia-uvm", majors["nvidia-uvm"], 0, 0o666),
            Node("nvidia-uvm-tools", majors["nvidia-uvm"], 1, 0o666),
        ]
    if (paths.sys_modules / "nvidia_modeset").is_dir():
        nodes.append(Node("nvidia-modeset", core, MINOR_MODESET, mode, owner))
    if "nvidia-caps" in majors:
        nodes += _capabilities(paths, majors["nvidia-caps"])
    return tuple(nodes)


def missing(paths: Paths, nodes: Iterable[Node]) -> list[Node]:
    """The nodes that are not there, or have other numbers."""
    return [node for node in nodes if _numbers(paths.dev / node.name) != (node.major, node.minor)]


def create(paths: Paths, nodes: Iterable[Node]) -> list[str]:
    """Make the nodes that are missing or wrong; returns their names. Raises DriverError (device-nodes-failed)."""
    made = []
    for node in missing(paths, nodes):
        path = paths.dev / node.name
        try:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            path.unlink(missing_ok=True)
            os.mknod(path, stat.S_IFCHR | node.mode, os.makedev(node.major, node.minor))
            path.chmod(node.mode)
            os.chown(path, *node.owner)
        except OSError as error:
            raise DriverError(
                Code.DEVICE_NODES_FAILED,
                f"{path} ({node.major}:{node.minor}) could not be made: {error.strerror}",
                "Run the container with --privileged: it needs CAP_MKNOD and a writable /dev",
            ) from error
        made.append(node.name)
    return made


def remove(paths: Paths, names: Iterable[str]) -> None:
    """Take away nodes we made; only character devices, and a folder only when it is empty."""
    for name in names:
        path = paths.dev / name
        if _numbers(path) is not None:
            path.unlink(missing_ok=True)
        if path.parent != paths.dev:
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def leftovers(paths: Paths) -> list[str]:
    """NVIDIA's nodes in /dev, by name: what a start before us may have left."""
    found = [path for pattern in ("nvidia*", "nvidia-caps/*") for path in paths.dev.glob(pattern)]
    return sorted(str(path.relative_to(paths.dev)) for path in found if _numbers(path) is not None)


def _numbers(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return (os.major(status.st_rdev), os.minor(status.st_rdev)) if stat.S_ISCHR(status.st_mode) else None


def _majors(paths: Paths) -> dict[str, int]:
    """Character majors by name, from /proc/devices; the first of a name counts."""
    majors: dict[str, int] = {}
    for number, name in chardevs.read(paths):
        majors.setdefault(name, number)
    return majors


def _gpu_minors(paths: Paths) -> Iterator[int]:
    """The minors of the GPUs, from /proc/driver/nvidia/gpus/*/information."""
    for gpu in entries(paths.proc / "driver/nvidia/gpus"):
        found = re.search(r"^Device Minor:\s*(\d+)", read_text(gpu / "information") or "", re.MULTILINE)
        if found:
            yield int(found[1])


def _capabilities(paths: Paths, major: int) -> Iterator[Node]:
    """MIG and fabric capabilities: each file of the tree tells its minor and mode (NVIDIA's nv-caps.c)."""
    for file in _files_below(paths.proc / "driver/nvidia/capabilities"):
        fields = dict(re.findall(r"^(\w+):\s*(\d+)", read_text(file) or "", re.MULTILINE))
        if "DeviceFileMinor" in fields and fields.get("DeviceFileModify", "1") != "0":
            minor = int(fields["DeviceFileMinor"])
            yield Node(f"nvidia-caps/nvidia-cap{minor}", major, minor, int(fields.get("DeviceFileMode", "256")))


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file of a tree, by name; what vanishes meanwhile has none (Path.rglob would raise)."""
    for entry in entries(folder):
        if entry.is_file():
            yield entry
        else:
            yield from _files_below(entry)
