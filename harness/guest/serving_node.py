"""A node that serves, as trees of copies of what its kernel shows: GPUs, modules, mounts, processes, a store, kernels.

`make` needs the right to make device nodes, and driverctr on the path of Python's modules.
"""

import json
import os
import time
from pathlib import Path

GPUS, FUNCTIONS, MOUNTS, PARAMETERS, STARTS, CHIPS = 8, 300, 200, 60, 50, 600
THREADS_OF_KERNEL, PROCESSES, DESCRIPTORS = 300, 150, 8
MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset")
DRIVER, RELEASE, NEXT = "535.309.01", "6.1.0-56-amd64", "6.1.0-57-amd64"
VERSION = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-01-02)"
BUILD_ID = bytes(range(20))
NOTE = b"\4\0\0\0\x14\0\0\0\3\0\0\0GNU\0" + BUILD_ID
IDS = Path("/usr/share/misc/pci.ids")
MAJOR = 195
STEPS = ("withdraw", "modules", "unload", "firmware", "driver-root", "load", "device-nodes", "daemons", "verify")
DAEMON, USER = 4000, 4100
LOCK_HOLDER = 3999


class Tree:
    """Files below a root."""

    def __init__(self, root: Path) -> None:
        """Nothing yet."""
        self.root = root

    def write(self, name: str, content: str | bytes) -> Path:
        """A file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def make(root: Path, *, used: bool) -> tuple[str, ...]:
    """Make it, `used` by a job on every GPU, or by persistenced alone; the addresses of the GPUs."""
    tree = Tree(root)
    users = 4 if used else 0
    _make_modules(tree, references=2 * (GPUS + 1) * (1 + users))
    addresses = _make_devices(tree)
    _make_kernel(tree)
    _make_processes(tree, users)
    _make_store(tree)
    _make_start(tree, addresses)
    return addresses


def _make_modules(tree: Tree, references: int) -> None:
    counts = {"nvidia": references + 2, "nvidia-uvm": 0, "nvidia-modeset": 0}
    for name in MODULES:
        folder = f"sys/module/{name.replace('-', '_')}"
        shown = {
            "version": DRIVER,
            "refcnt": counts[name],
            "initstate": "live",
            "srcversion": "AB12",
        }
        for kind, text in shown.items():
            tree.write(f"{folder}/{kind}", f"{text}\n")
        tree.write(f"{folder}/notes/.note.gnu.build-id", NOTE)
        for number in range(PARAMETERS):
            tree.write(f"{folder}/parameters/p{number}", "1\n")
        (tree.root / folder / "holders").mkdir()
    for name in ("nvidia_uvm", "nvidia_modeset"):
        tree.link(f"sys/module/nvidia/holders/{name}", f"../../{name}")
    for number in range(200):
        tree.write(f"sys/module/other_{number}/initstate", "live\n")
    tree.write("proc/driver/nvidia/params", "".join(f"Parameter{number}: 1\n" for number in range(PARAMETERS)))
    tree.write("proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {DRIVER}  Wed\nGCC\n")


def _make_devices(tree: Tree) -> tuple[str, ...]:
    tree.write("proc/devices", f"Character devices:\n  {MAJOR} nvidia\n510 nvidia-uvm\n\nBlock devices:\n")
    (tree.root / "dev").mkdir()
    nodes = {"nvidiactl": (MAJOR, 255), "nvidia-modeset": (MAJOR, 254), "nvidia-uvm": (510, 0)}
    nodes |= {"nvidia-uvm-tools": (510, 1), **{f"nvidia{number}": (MAJOR, number) for number in range(GPUS)}}
    for name, (major, minor) in nodes.items():
        os.mknod(tree.root / "dev" / name, 0o20666, os.makedev(major, minor))
    addresses = []
    for number in range(FUNCTIONS):
        address = f"0000:{number // 8:02x}:{number % 8:02x}.0"
        ours = number % 8 == 0 and number // 8 < GPUS
        # As in sysfs, a function's folder is a link to where it hangs.
        place = f"sys/devices/pci0000:00/{address}"
        tree.write(f"{place}/vendor", "0x10de\n" if ours else "0x8086\n")
        tree.write(f"{place}/class", "0x030200\n" if ours else "0x088000\n")
        tree.link(f"sys/bus/pci/devices/{address}", f"../../../devices/pci0000:00/{address}")
        if ours:
            addresses.append(address)
            for name, text in {"device": "0x20b0", "subsystem_vendor": "0x10de", "subsystem_device": "0x144e"}.items():
                tree.write(f"{place}/{name}", f"{text}\n")
            tree.write(f"{place}/driver_override", "(null)\n")
            tree.link(f"{place}/driver", "../../../bus/pci/drivers/nvidia")
            tree.write(f"proc/driver/nvidia/gpus/{address}/information", f"Device Minor: \t {number // 8}\n")
    if IDS.is_file():
        tree.write(str(IDS).lstrip("/"), IDS.read_bytes())
    else:
        tree.write(str(IDS).lstrip("/"), _like_pci_ids())
    return tuple(addresses)


def _like_pci_ids() -> str:
    """As many vendors and devices as the database has, and its size of 1.5 MB."""
    lines = ["# pci.ids"]
    for vendor in range(0x1000, 0x1900):
        lines.append(f"{vendor:04x}  Vendor {vendor} Corporation")
        count = 1800 if vendor == 0x10DE else 10
        lines += [
            f"\t{device:04x}  Chip {device} [Device of the vendor's {device}]"
            for device in range(0x2000, 0x2000 + count)
        ]
    return "\n".join(lines) + "\n"


def _make_kernel(tree: Tree) -> None:
    tree.write("proc/sys/kernel/osrelease", f"{RELEASE}\n")
    tree.write("proc/sys/kernel/version", f"{VERSION}\n")
    tree.write("proc/version", f"Linux version {RELEASE} (gcc-12 (Debian 12.2.0) 12.2.0, GNU ld 2.40) {VERSION}\n")
    tree.write("proc/stat", "cpu 1\nbtime 1700000000\n")
    tree.write("sys/kernel/notes", NOTE)
    rows = "".join(f"{n} 1 0:{n} / /mnt/{n} rw,relatime shared:{n} - tmpfs tmpfs rw\n" for n in range(30, 30 + MOUNTS))
    mounted = [
        "1 0 0:1 / / rw - overlay overlay rw",
        f"2 1 0:8 /nvidia {tree.root}/run/nvidia rw shared:1 - tmpfs tmpfs rw",
        f"3 2 0:1 / {tree.root}/run/nvidia/driver rw shared:2 - overlay overlay rw",
        "",
    ]
    tree.write("proc/self/mountinfo", "\n".join(mounted) + rows)
    for name, number in (("self", 2), ("1", 1)):
        tree.link(f"proc/{name}/ns/mnt", f"mnt:[{number}]")
    tree.link("proc/self/ns/pid", "pid:[4026531836]")
    tree.write("proc/self/status", "CapEff:\t000001ffffffffff\n")
    host = tree.root.parent / f"{tree.root.name}-host"
    tree.link("proc/1/root", str(host))
    on_host = Tree(host)
    for release in (RELEASE, NEXT):
        on_host.write(f"lib/modules/{release}/modules.builtin", "kernel/fs/ext4/ext4.ko\n" * 200)
        on_host.write(f"boot/vmlinuz-{release}", _like_boot_image(release))
    on_host.write("etc/os-release", 'ID=debian\nVERSION_ID="12"\n')


def _like_boot_image(release: str) -> bytes:
    """The head of an x86 kernel image, with its version where its setup header says."""
    image = bytearray(1 << 17)
    image[0x202:0x206], image[0x20E:0x210] = b"HdrS", (0x3000).to_bytes(2, "little")
    text = f"{release} (debian-kernel@lists.debian.org) {VERSION}\0".encode()
    image[0x3200 : 0x3200 + len(text)] = text
    return bytes(image)


def _make_processes(tree: Tree, users: int) -> None:
    for pid in (1, *range(2, 2 + THREADS_OF_KERNEL)):
        _make_process(tree, pid, "kworker", [], "0::/\n")
    for pid in range(1000, 1000 + PROCESSES):
        others = [
            "/dev/null",
            *(f"socket:[{pid}{n}]" if n % 2 else "anon_inode:[eventpoll]" for n in range(DESCRIPTORS - 1)),
        ]
        _make_process(tree, pid, f"/usr/bin/program-{pid} --flag", others, f"0::/system.slice/program-{pid}.service\n")
    group = f"0::/kubepods.slice/cri-containerd-{'3f' * 32}.scope\n"
    held = [f"{tree.root}/dev/{name}" for name in ("nvidiactl", *(f"nvidia{number}" for number in range(GPUS)))]
    _make_process(tree, DAEMON, "/usr/bin/nvidia-persistenced --persistence-mode", ["/dev/null", *held], group)
    for pid in range(USER, USER + users):
        _make_process(tree, pid, "python3 train.py --epochs 3", ["/dev/null", *held], group.replace("3f", "4f"))
    tree.write("var/run/nvidia-persistenced/nvidia-persistenced.pid", f"{DAEMON}\n")
    _make_process(tree, LOCK_HOLDER, "/usr/bin/python3 /usr/bin/nvidia-driver init", ["/dev/null"], group)
    tree.link(f"proc/{LOCK_HOLDER}/root", str(tree.root))
    lock = tree.write("run/nvidia/nvidia-driver.pid", f"{LOCK_HOLDER}\n").stat()
    device = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    rest = "".join(f"{n}: POSIX  ADVISORY  WRITE 1234 00:19:{n} 0 EOF\n" for n in range(2, 60))
    tree.write("proc/locks", f"1: FLOCK  ADVISORY  WRITE {LOCK_HOLDER} {device} 0 EOF\n{rest}")


def _make_process(tree: Tree, pid: int, command: str, descriptors: list[str], group: str) -> None:
    short = os.path.basename(command.partition(" ")[0])[:15]  # noqa: PTH119  # a command's first word is no path here
    tree.write(f"proc/{pid}/stat", f"{pid} ({short}) S " + "0 " * 18 + f"{pid} 0\n")
    tree.write(f"proc/{pid}/cmdline", command.replace(" ", "\0") + "\0" if descriptors else "")
    tree.write(f"proc/{pid}/cgroup", group)
    tree.write(
        f"proc/{pid}/status", f"Name:\t{short}\nSigIgn:\t0000000000001000\nSigCgt:\t0000000180004a02\nNSpid:\t{pid}\n"
    )
    tree.write(f"proc/{pid}/mountinfo", "1 0 0:1 / / rw - overlay overlay rw\n")
    tree.write(f"proc/{pid}/maps", "")
    (tree.root / f"proc/{pid}/fd").mkdir()
    (tree.root / f"proc/{pid}/task/{pid}").mkdir(parents=True)
    for number, target in enumerate(descriptors):
        tree.link(f"proc/{pid}/fd/{number}", target)
        tree.write(f"proc/{pid}/fdinfo/{number}", "pos:\t0\nflags:\t02\nmnt_id:\t1\n")


def _make_store(tree: Tree) -> None:
    from driverctr.facts import kernel
    from driverctr.log import Log
    from driverctr.modules import ModuleFile, ModuleSet, Wish, key, pins
    from driverctr.modules.pins import Good
    from driverctr.modules.store import Store
    from driverctr.paths import Paths
    from driverctr.userspace import image

    sources = [
        {"type": kind, "version": DRIVER, "path": f"/usr/src/nvidia-{kind}", "sha256": "ab" * 32}
        for kind in ("open", "proprietary")
    ]
    described = {"driver_version": DRIVER, "sources": sources, "distribution": "debian", "architecture": "amd64"}
    tree.write("usr/share/driverctr/image.json", json.dumps(described))
    chips = [
        {
            "devid": f"0x{number:04X}",
            "name": f"NVIDIA chip {number}",
            "features": ["dpycbcr420", "kernelopen", "vdpaufeaturesetD"],
        }
        for number in range(0x20B0, 0x20B0 + CHIPS)
    ]
    tree.write("usr/share/nvidia/supported-gpus.json", json.dumps({"chips": chips}, indent=2))
    folder = tree.root / "var/lib/driverctr/store"
    folder.mkdir(parents=True)
    store, paths = Store.open(folder, Log()), Paths(tree.root)
    for release in (RELEASE, NEXT):
        draft = tree.root / f"draft-{release}"
        files = {}
        for name in MODULES:
            file = Tree(draft).write(f"{name}.ko", b"\x7fELF" + bytes(1 << 16))
            parameters = {f"NVreg_Parameter{number}": "int" for number in range(PARAMETERS)}
            files[name] = ModuleFile(
                file, "cd" * 32, BUILD_ID.hex(), "AB12", f"{release} SMP preempt mod_unload ", 4 + (1 << 16), parameters
            )
        found = ModuleSet(draft, release, VERSION, DRIVER, "proprietary", files)
        wanted = kernel.read_installed(paths.root, release)
        known = key.make(Wish(release, DRIVER, "proprietary"), image.read(paths.root), wanted)
        store.publish(known, found, None, {"compiler": "gcc-12"})
        if release == RELEASE:
            pins.record_good(folder, Good(known))


def _make_start(tree: Tree, addresses: tuple[str, ...]) -> None:
    from driverctr import history, markers, status
    from driverctr.history import Outcome, Start
    from driverctr.paths import Paths
    from driverctr.status import Phase, Status, StepTime
    from driverctr.verify import Expected

    paths, now = Paths(tree.root), time.time()
    words = tuple(f"NVreg_Parameter{number}=1" for number in range(10))
    expected = Expected(
        DRIVER,
        {name: BUILD_ID.hex() for name in MODULES},
        {"nvidia": words},
        gpus=addresses,
        root=True,
    )
    told = Status(
        Phase.READY,
        now - 3600,
        LOCK_HOLDER,
        "3f" * 32,
        now - 3700,
        DRIVER,
        "proprietary",
        RELEASE,
        "store",
        steps=tuple(StepTime(name, 1.25, "done") for name in STEPS),
        last_check=now - 20,
        expected=expected.as_dict(),
        store="hit",
        gpus_answering=dict.fromkeys(addresses, True),
    )
    status.publish(paths, told)
    markers.write_daemons_status(paths.run, ready=True)
    markers.write_ready(paths.run, gds=False, gdrcopy=False, rdma=False)
    for number in range(STARTS):
        history.record(
            tree.root / "var/lib/driverctr/store",
            Start(
                now - 1e6 + number * 1e4,
                12.5,
                Outcome.READY,
                driver_version=DRIVER,
                module_type="proprietary",
                kernel_release=RELEASE,
                modules_from="store",
                steps=dict.fromkeys(STEPS, 1.2),
            ),
        )
