"""What a bundle holds of the node: kernel log, PCI, device nodes, mounts, packages, distributions, room."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from driverctr import survey
from driverctr.bundle import Part, read_end
from driverctr.bundleparts import Scene
from driverctr.errors import DriverError
from driverctr.facts import functions, hostroot, kernellog, mounttable, osrelease
from driverctr.files import entries, read_text
from driverctr.mounts import rootstate
from driverctr.paths import Paths

DRIVER_FILES = ("version", "params", "registry")
OF_KERNEL = (
    "proc/version",
    "proc/cmdline",
    "proc/sys/kernel/tainted",
    "proc/sys/kernel/modules_disabled",
    "sys/kernel/security/lockdown",
    "sys/module/module/parameters/sig_enforce",
    "sys/module/firmware_class/parameters/path",
    "sys/firmware/efi/fw_platform_size",
)
OF_MEMORY = ("MemTotal:", "MemAvailable:", "SwapFree:", "Shmem:")
PLACES = ("/", "/run/nvidia", "/var/tmp", "/tmp", "/var/lib/driverctr", "/lib/modules", "/drivers")
PACKAGE_TOOLS = (
    ("dpkg-query", "--show", "--showformat", r"${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n"),
    ("rpm", "--query", "--all", "--queryformat", r"%{NAME} %{EVR} %{ARCH}\n"),
)
"""What asks for every package, in the images that have them."""


def kernel_log(scene: Scene) -> str:
    """What the kernel said of the driver and of loads, with seconds since the boot."""
    said = kernellog.read(scene.paths)
    ours = set(said.about(survey.TO_LOAD))
    head = [said.unknown] if said.unknown else []
    head += ["older lines were overwritten"] if said.gap else []
    head += [f"{len(said.lines)} lines in the kernel log, {len(ours)} different ones of the driver or a load"]
    shown = (f"[{line.seconds:12.6f}] {line.text}" for line in said.lines if line.text in ours)
    return "\n".join([*head, *shown]) + "\n"


def kernel_state(scene: Scene) -> str:
    """How the kernel was booted, and what it allows."""
    return "".join(f"{name}: {_told(scene.paths.root / name)}\n" for name in OF_KERNEL)


def _told(path: Path) -> str:
    try:
        return " ".join(read_end(path).split()) or "(empty)"
    except OSError as error:
        return f"({error.strerror})"


def driver_state(scene: Scene) -> str:
    """What the driver tells of itself in /proc/driver/nvidia."""
    folder = scene.paths.proc / "driver/nvidia"
    found = [folder / name for name in DRIVER_FILES]
    found += [gpu / name for gpu in entries(folder / "gpus") for name in ("information", "power")]
    shown = [f"== {path}\n{read_text(path)}\n" for path in found if read_text(path) is not None]
    return "".join(shown) or f"{folder} is not there: the driver is not loaded\n"


def pci(scene: Scene) -> str:
    """NVIDIA's functions."""
    return functions.describe(scene.paths)


def device_nodes(scene: Scene) -> str:
    """Device nodes of the driver, and the numbers that the kernel gives them."""
    numbers = (read_text(scene.paths.proc / "devices") or "").splitlines()
    lines = [f"/proc/devices: {line.strip()}" for line in numbers if "nvidia" in line]
    return "".join(f"{line}\n" for line in (*lines, *_nodes(scene.paths.dev))) or "no device node of the driver\n"


def _nodes(folder: Path) -> Iterator[str]:
    for path in entries(folder):
        if path.name.startswith("nvidia") or folder.name.startswith("nvidia"):
            seen = path.lstat()
            number = f" {os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}" if stat.S_ISCHR(seen.st_mode) else ""
            yield f"{stat.filemode(seen.st_mode)} {seen.st_uid}:{seen.st_gid}{number} {path}"
            if path.is_dir() and not path.is_symlink():
                yield from _nodes(path)


def mounts(scene: Scene) -> str:
    """Mounts below /run/nvidia and /lib/modules, ours and the host's, and what the driver root is."""
    root = rootstate.read(scene.paths)
    owner = "ours" if root.ours else "another's" if root.layers else "there is none"
    lines = [f"driver root: {len(root.layers)} mounted, {owner}{f'; {root.unshared}' if root.unshared else ''}"]
    tables = {"ours": scene.paths.proc / "self/mountinfo", "of process 1": scene.paths.proc / "1/mountinfo"}
    if scene.paths.mounts is not None:
        tables["of the driver container"] = scene.paths.mounts
    for whose, file in tables.items():
        try:
            table = mounttable.read_file(file)
        except OSError as error:
            lines.append(f"{whose}: {error.strerror}")
            continue
        lines += [
            f"{whose}: {mount.id} on {mount.parent}, {mount.source} ({mount.fstype}) {mount.root} at {mount.target}, "
            f"{mount.options}, {mount.propagation}"
            for mount in table
            if mount.target.startswith(("/run/nvidia", "/lib/modules", "/var/lib/driverctr", "/drivers", "/etc/kube"))
        ]
    return "\n".join(lines) + "\n"


def packages(scene: Scene) -> str:
    """Every package of the image."""
    failures = []
    for argv in PACKAGE_TOOLS:
        try:
            said = scene.tools.runner.run(argv, check=False, limit=30)
        except DriverError as error:
            failures.append(error.message)
            continue
        if said.status == 0:
            return "".join(f"{line}\n" for line in sorted(said.stdout.splitlines()))
        failures.append(f"{argv[0]}: {said.words}")
    return "".join(f"{failure}\n" for failure in failures)


def distributions(scene: Scene) -> str:
    """os-release of the image and of the host."""
    shown = [_release("image", scene.paths.root / name) for name in osrelease.FILES]
    host = _host_release(scene.paths)
    shown += [_release("host", host)] if host else ["== the host's is not visible\n"]
    return "".join(filter(None, shown))


def _release(whose: str, path: Path) -> str:
    text = read_text(path)
    return f"== {whose}: {path}\n{text}\n" if text else ""


def _host_release(paths: Paths) -> Path | None:
    mounted = paths.root / osrelease.MOUNTED
    if mounted.is_file():
        return mounted
    place = hostroot.process_root(paths.root)
    for name in osrelease.FILES if place else ():
        try:
            return place.resolve(Path("/") / name) if place else None
        except DriverError:
            continue
    return None


def room(scene: Scene) -> str:
    """Free space where we write, memory, and the limits of our cgroup."""
    lines = []
    for place in PLACES:
        folder = scene.paths.run if place == "/run/nvidia" else scene.paths.root / place.lstrip("/")
        try:
            seen = os.statvfs(folder)
        except OSError as error:
            lines.append(f"{place}: {error.strerror}")
            continue
        free, size = (blocks * seen.f_frsize / 1e6 for blocks in (seen.f_bavail, seen.f_blocks))
        lines.append(f"{place}: {free:.0f} of {size:.0f} MB free, {seen.f_favail} of {seen.f_files} files")
    memory = (read_text(scene.paths.proc / "meminfo") or "").splitlines()
    lines += [line for line in memory if line.startswith(OF_MEMORY)]
    limits = scene.paths.root / "sys/fs/cgroup"
    lines += [f"{name}: {_told(limits / name)}" for name in ("memory.max", "memory.current", "cpu.max", "pids.max")]
    return "\n".join(lines) + "\n"


def parameters(scene: Scene) -> str:
    """The user's files of module parameters, and modprobe's configuration."""
    folders = (scene.paths.user_settings, scene.paths.modprobe_d)
    found = [path for folder in folders for path in entries(folder) if path.suffix == ".conf"]
    return "".join(f"== {path}\n{read_text(path)}\n" for path in found) or "no file of module parameters\n"


PARTS = (
    Part("driver.txt", "what the driver tells of itself: /proc/driver/nvidia", driver_state),
    Part("parameters.txt", "module parameters: /drivers and modprobe.d", parameters),
    Part("kernel-log.txt", "lines of the driver and of loads", kernel_log, most=512 << 10, keeps_end=True),
    Part("kernel.txt", "how the kernel was booted, what it allows", kernel_state),
    Part("pci.txt", "NVIDIA's functions on the PCI bus", pci),
    Part("devices.txt", "device nodes and their numbers", device_nodes),
    Part("mounts.txt", "mounts below /run/nvidia, ours and the host's", mounts),
    Part("packages.txt", "packages of the image", packages),
    Part("os-release.txt", "distribution of the image and of the host", distributions),
    Part("room.txt", "disk, memory and limits", room),
)
