"""What processes keep open or mapped of NVIDIA's devices, whatever the nodes' names, read cheaply from procfs."""
# A Path for each of thousands of files costs more than reading them.
# ruff: noqa: PTH115, PTH116, PTH123, PTH208

import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator

from driverctr.deferred import pattern
from driverctr.facts import chardevs
from driverctr.facts.chardevs import MINOR_MODESET
from driverctr.facts.openfiles import Descriptor, OpenFiles
from driverctr.files import link_target
from driverctr.paths import Paths
from driverctr.records import field, mutable

OTHERS = {"nvidia-uvm": "nvidia_uvm", "nvidia-fs": "nvidia_fs", "gdrdrv": "gdrdrv"}
"""Character devices that are not the core module's, by the name they are registered under."""

DRM = "drm"

LOCAL = frozenset(
    b"devtmpfs tmpfs ramfs rootfs overlay aufs ext2 ext3 ext4 xfs btrfs f2fs bcachefs zfs erofs squashfs 9p".split()
)
"""File systems that answer stat(2) without asking anybody: a dead NFS server would keep us waiting for ever. 9p is what
virtual machines have as their root."""

_MOUNT = pattern(rb"^(\d+) \d+ (\d+:\d+) .* - (\S+) ", re.MULTILINE)
_MOUNT_ID = pattern(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)
_FLAGS = pattern(rb"^flags:\s*([0-7]+)$", re.MULTILINE)
_MAPPING = pattern(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ((\S+) [1-9]\d* +(\S.*))$", re.MULTILINE)


def read_majors(paths: Paths) -> dict[int, str]:
    """NVIDIA's character majors and the first name each is registered under, from /proc/devices; drm's too."""
    majors: dict[int, str] = {}
    for number, name in chardevs.read(paths):
        if name.startswith("nvidia") or name in OTHERS or name == DRM:
            majors.setdefault(number, name)
    return majors


def references(device: str, minor: int) -> Counter[str]:
    """What one open handle adds to the refcnt of modules, by the name its major is registered under.

    chrdev_open takes two references on the owner, for the cdev and for its operations (Linux, fs/char_dev.c);
    nvidia-frontend, until branch 535, one more on the module behind the minor (NVIDIA, nv-frontend.c); drm puts the
    card's operations in place of its own (drm_stub_open).
    """
    behind = "nvidia_modeset" if minor == MINOR_MODESET else "nvidia"
    match device:
        case "nvidia-frontend":
            return Counter({"nvidia": 2}) + Counter({behind: 1})
        case "nvidia" | "nvidiactl" | "nvidia-modeset":
            return Counter({behind: 2})
        case "drm":
            return Counter({"nvidia_drm": 1})
        case _:
            return Counter({OTHERS.get(device, "nvidia"): 2})


@mutable
class Scanner:
    """Looks into one process after the other and remembers what it learned of mounts and mapped files."""

    paths: Paths
    majors: dict[int, str]
    kinds: dict[bytes, bytes] = field(default_factory=dict)
    """File system types by mount id (unique on a node) and by device, as far as they were needed."""
    namespaces: set[str] = field(default_factory=set)
    mapped: dict[bytes, int | None] = field(default_factory=dict)
    """Our device by device, inode and path of a mapping: a library is looked at once, not once a process."""

    def __post_init__(self) -> None:
        """A path is made text once, not once a process."""
        self.proc = str(self.paths.proc)

    def pids(self) -> list[int]:
        """Every process we see."""
        return sorted(int(name) for name in os.listdir(self.proc) if name.isdigit())

    def threads(self, pid: int) -> list[int]:
        """Its other threads: one may have a file table of its own, or have outlived the first."""
        try:
            return [tid for name in os.listdir(f"{self.proc}/{pid}/task") if (tid := int(name)) != pid]
        except OSError:
            return []

    def open_files(self, pid: int) -> Counter[str]:
        """References by module through open files; a process that ends meanwhile, or is closed to us, has none."""
        return self._references(device for _, device in self._descriptors(pid))

    def shared_files(self, pids: Iterable[int]) -> dict[int, Counter[str]]:
        """What of that is through open files that an earlier descriptor stands for too: forks and dup(2) share them."""
        seen = OpenFiles()
        shared = {}
        for pid in pids:
            held = [(device, Descriptor(pid, number)) for number, device in self._descriptors(pid)]
            shared[pid] = self._references(device for device, met in held if not seen.is_new(device, met))
        return shared

    def mappings(self, pid: int) -> Counter[str]:
        """References by module through mappings of devices that the process has not open.

        Each device counts once, the least there can be: neither how many open files are behind the mappings of one
        device can be told, nor whether those are open still.
        """
        mapped = self._mapped_devices(pid)
        return self._references(mapped.difference(device for _, device in self._descriptors(pid)) if mapped else ())

    def mapped_modules(self, pid: int) -> tuple[str, ...]:
        """The modules that a process holds by mappings, maybe more often than `mappings` counts."""
        return tuple(sorted(self._references(self._mapped_devices(pid))))

    def _descriptors(self, pid: int) -> Iterator[tuple[int, int]]:
        """Number and device of each descriptor that holds one of ours."""
        folder = f"{self.proc}/{pid}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            return
        for name in names:
            try:
                target = os.readlink(f"{folder}/{name}")
                if not target.startswith("/") or not self._may_stat(pid, name, os.fsencode(target)):
                    continue
                device = self._our_device(os.stat(f"{folder}/{name}"))
            except OSError:
                continue
            if device is not None and not self._is_path_only(pid, name):
                yield int(name), device

    def _mapped_devices(self, pid: int) -> set[int]:
        """maps shows the device a node lies on, not the one it stands for; map_files leads to the node (proc(5))."""
        found = set()
        for start, end, key, device, name in self._read_maps(pid):
            if key not in self.mapped:
                self.mapped[key] = self._mapping(pid, f"{int(start, 16):x}-{int(end, 16):x}", device, name)
            if (ours := self.mapped[key]) is not None:
                found.add(ours)
        return found

    def _read_maps(self, pid: int) -> Iterator[tuple[bytes, bytes, bytes, bytes, bytes]]:
        """One mapping a file: start, end, key (device, inode, name), device, name."""
        with contextlib.suppress(OSError), open(f"{self.proc}/{pid}/maps", "rb") as file:
            seen = set()
            for start, end, key, device, name in _MAPPING.findall(file.read()):
                if key not in seen:
                    seen.add(key)
                    yield start, end, key, device, name

    def _mapping(self, pid: int, area: str, device: bytes, name: bytes) -> int | None:
        major, _, minor = device.partition(b":")
        if _is_device_name(name) or self._is_local(pid, b"%d:%d" % (int(major, 16), int(minor, 16))):
            with contextlib.suppress(OSError):
                return self._our_device(os.stat(f"{self.proc}/{pid}/map_files/{area}"))
        return None

    def _may_stat(self, pid: int, descriptor: str, target: bytes) -> bool:
        """Whether a descriptor may be a device's, told without asking its file system, which may be dead."""
        if _is_device_name(target):
            return True
        if target.startswith(b"/memfd:"):
            return False
        mount = _MOUNT_ID.search(self._fdinfo(pid, descriptor))
        return mount is not None and self._is_local(pid, mount[1])

    def _is_local(self, pid: int, mount: bytes) -> bool:
        """By mount id or device; a mount that no namespace shows any more was detached, maybe for being dead."""
        if mount not in self.kinds:
            self._learn_mounts(pid)
        return self.kinds.get(mount, b"") in LOCAL

    def _learn_mounts(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"{self.proc}/{pid}/ns/mnt")
            if namespace not in self.namespaces:
                self.namespaces.add(namespace)
                with open(f"{self.proc}/{pid}/mountinfo", "rb") as file:
                    for mount, device, kind in _MOUNT.findall(file.read()):
                        self.kinds[mount] = self.kinds[device] = kind

    def _our_device(self, status: os.stat_result) -> int | None:
        """The number of the device a node stands for, where it is ours."""
        if not stat.S_ISCHR(status.st_mode):
            return None
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        device = self.majors.get(major)
        if device is None or (device == DRM and not self._is_our_card(major, minor)):
            return None
        return status.st_rdev

    def _references(self, devices: Iterable[int]) -> Counter[str]:
        found: Counter[str] = Counter()
        for device in devices:
            found += references(self.majors[os.major(device)], os.minor(device))
        return found

    def _is_our_card(self, major: int, minor: int) -> bool:
        """Whether a drm node is a GPU of ours; all vendors share the major."""
        return link_target(self.paths.root / f"sys/dev/char/{major}:{minor}/device/driver") == "nvidia"

    def _is_path_only(self, pid: int, descriptor: str) -> bool:
        """Whether it was opened with O_PATH: such a descriptor names the node and holds nothing (open(2))."""
        flags = _FLAGS.search(self._fdinfo(pid, descriptor))
        return flags is not None and bool(int(flags[1], 8) & os.O_PATH)

    def _fdinfo(self, pid: int, descriptor: str) -> bytes:
        with contextlib.suppress(OSError), open(f"{self.proc}/{pid}/fdinfo/{descriptor}", "rb") as file:
            return file.read()
        return b""


def _is_device_name(name: bytes) -> bool:
    """A usual name of a device node: below /dev, or NVIDIA's name wherever a detached mount shows it."""
    return name.startswith(b"/dev/") or name.rpartition(b"/")[2].startswith(b"nvidia")
