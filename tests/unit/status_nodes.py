"""Nodes in every state that `driverctr status` can meet, as trees."""

import os
from pathlib import Path
from typing import Any

from driverctr import markers, status
from driverctr.paths import Paths
from driverctr.status import Phase, Status, StepTime
from tests.unit.conftest import make_tree
from tests.unit.test_holders import process
from tests.unit.test_use import loaded
from tests.unit.test_verify import ONE, expected, gpu

PID = 4242
RELEASE = "6.1.0-56-amd64"
IDS = "\n".join(
    [
        "# pci.ids",
        "10de  NVIDIA Corporation",
        "\t20b0  GA100 [A100 SXM4 40GB]",
        "\t\t10de 144e  A100 SXM4 40GB",
        "10df  Emulex Corporation",
        "\t20f0  Not NVIDIA's",
        "",
    ]
)
FAILURE = {"code": "load-failed", "message": "nvidia did not load", "remedy": "Look into dmesg", "at": 1_700_000_050.0}


def bare(paths: Paths) -> Paths:
    """A node where nothing of ours ever ran, and no GPU is."""
    if not (paths.proc / "self/ns").exists():
        make_tree(paths.root, {"proc/self/ns/pid": "-> pid:[4026531836]"})
    make_tree(
        paths.root,
        {
            "proc/self/mountinfo": "1 0 0:1 / / rw - overlay overlay rw\n",
            "proc/sys/kernel/osrelease": f"{RELEASE}\n",
            "proc/sys/kernel/version": "#1 SMP Debian 6.1.1-1\n",
        },
    )
    return paths


def hold(paths: Paths, pid: int = PID) -> None:
    """Have a process hold the lock, by the kernel's word."""
    paths.pid_file.parent.mkdir(parents=True, exist_ok=True)
    paths.pid_file.write_text(f"{pid}\n")
    file = paths.pid_file.stat()
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    make_tree(paths.root, {"proc/locks": f"1: FLOCK  ADVISORY  WRITE {pid} {device} 0 EOF\n"})


def let_go(paths: Paths) -> None:
    """Have its holder die, as by kill -9: the file stays."""
    (paths.proc / "locks").write_text("")


def with_gpu(paths: Paths) -> Paths:
    """A GPU on the bus, its name in the image's database, no driver."""
    gpu(bare(paths), ONE, "")
    make_tree(paths.root, {"usr/share/misc/pci.ids": IDS})
    return paths


def tell(paths: Paths, phase: Phase, **more: Any) -> None:
    """A document of a start in a phase."""
    plain: dict[str, Any] = {
        "started": 1_700_000_000.0,
        "container": "3f" * 32,
        "driver_version": "535.1",
        "module_type": "proprietary",
        "kernel_release": RELEASE,
        "modules_from": "store",
        "steps": (StepTime("withdraw", 0.04, "done"), StepTime("modules", 9.5, "done")),
    }
    status.publish(paths, Status(phase, 1_700_000_040.0, PID, **{**plain, **more}))


def serving(paths: Paths) -> Paths:
    """Ready: loaded, bound, mounted, marked, and its process lives."""
    loaded(paths, "nvidia", 1, "nvidia_uvm")
    loaded(paths, "nvidia_uvm", 0)
    gpu(with_gpu(paths), ONE)
    make_tree(
        paths.root,
        {
            "dev": None,
            "proc/driver/nvidia/params": "A: 1\n",
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.1  Wed\nGCC version\n",
        },
    )
    hold(paths)
    tell(
        paths,
        Phase.READY,
        expected=expected(gpus=(ONE,)).as_dict(),
        last_check=1_700_000_100.0,
        gpus_answering={ONE: True},
        store="hit",
    )
    markers.write_ready(paths.run, gds=False, gdrcopy=False, rdma=False)
    markers.write_daemons_status(paths.run, ready=True)
    return paths


def degraded(paths: Paths) -> Paths:
    """Ready, with everything that may be told of such a driver."""
    serving(paths)
    make_tree(paths.root, {"proc/driver/nvidia/params": "A: 0\n"})
    tell(
        paths,
        Phase.READY,
        expected=expected(gpus=(ONE,)).as_dict(),
        degraded=("535.2 did not load: 535.1 serves",),
        rollback="535.2 did not load: 535.1 serves",
        pending="parameters changed, and pid 7 uses the driver",
        lost=("GPU 0: MIG mode Enabled",),
        store="miss",
        store_reason="the store has no 535.2 for it",
        gpus_answering={ONE: False},
        in_use=({"module": "nvidia", "refcnt": 3, "pids": [7], "unseen": 0, "sentence": "nvidia has refcnt 3: pid 7"},),
        attempt=2,
    )
    return paths


def used(paths: Paths) -> Paths:
    """A process in a container has a device open: the real null device stands for it."""
    serving(paths)
    (paths.sys_modules / "nvidia/refcnt").write_text("4\n")
    make_tree(paths.root, {"proc/devices": "Character devices:\n  1 nvidia-frontend\n"})
    make_tree(paths.root, {"proc/stat": "cpu 1\nbtime 1000\n"})
    cgroup = f"0::/system.slice/docker-{'3f' * 32}.scope\n"
    process(paths, 7, {"fd/3": "-> /dev/null", "fdinfo/3": "flags: 02\n", "cgroup": cgroup})
    return paths


def not_ready(paths: Paths) -> Paths:
    """The start lives, and a module is another one than it loaded."""
    serving(paths)
    make_tree(paths.root, {"sys/module/nvidia_uvm/version": "470.9"})
    problem = {"code": "other-version", "message": "nvidia-uvm is version 470.9", "kernel_log": "NVRM: API mismatch"}
    tell(paths, Phase.NOT_READY, expected=expected(gpus=(ONE,)).as_dict(), problems=(problem,))
    return paths


def starting(paths: Paths) -> Paths:
    """In the middle of a start."""
    hold(with_gpu(paths))
    tell(paths, Phase.STARTING, step="load")
    return paths


def retrying(paths: Paths) -> Paths:
    """Between two attempts."""
    hold(with_gpu(paths))
    tell(paths, Phase.RETRYING, attempt=3, next_try=1_700_000_060.0, failure=FAILURE)
    return paths


def failed(paths: Paths) -> Paths:
    """Ended with a failure."""
    tell(with_gpu(paths), Phase.FAILED, step="load", failure=FAILURE)
    return paths


def crashed(paths: Paths) -> Paths:
    """Ready until its process was killed."""
    let_go(serving(paths))
    return paths


def stopped(paths: Paths) -> Paths:
    """Stopped, and the driver kept."""
    let_go(serving(paths))
    tell(paths, Phase.STOPPED, kept=("load", "driver-root"))
    return paths


def in_driver_root(paths: Paths) -> Paths:
    """What `chroot /run/nvidia/driver` sees of a node that serves: no /run/nvidia, which process 1 has."""
    container = serving(Paths(paths.root.parent / "container"))
    make_tree(container.root, {"srv/store/entries/one/nvidia.ko": "12345", "srv/store/entries/one/key.json": "{}"})
    host = paths.root.parent / "host"
    (host / "run").mkdir(parents=True)
    (host / "run/nvidia").symlink_to(container.run)
    (container.run / "driver").symlink_to(paths.root)
    (paths.root / "sys").symlink_to(container.root / "sys")
    make_tree(paths.root, {"proc": None, f"proc/{PID}/root": f"-> {container.root}"})
    make_tree(paths.root, {f"proc/{PID}/environ": "STORE_DIR=/srv/store\0"})
    make_tree(container.root, {f"proc/{PID}/environ": "STORE_DIR=/srv/store\0"})
    (paths.proc / "locks").write_text((container.proc / "locks").read_text())
    (paths.proc / "devices").touch()
    (paths.root / "proc/1").mkdir(parents=True)
    (paths.root / "proc/1/root").symlink_to(host)
    lines = [
        "1 0 0:9 / / rw - ext4 sda rw\n",
        "2 1 0:8 / /run rw shared:1 - tmpfs tmpfs rw\n",
        "3 2 0:1 / /run/nvidia/driver rw shared:2 - overlay overlay rw\n",
    ]
    make_tree(paths.root, {"proc/1/mountinfo": "".join(lines)})
    inside = lines[0] + "2 1 0:8 /nvidia /run/nvidia rw shared:1 - tmpfs tmpfs rw\n" + lines[2]
    make_tree(paths.root, {f"proc/{PID}/mountinfo": inside.replace("0:9 /", "0:1 /", 1)})
    return paths


def in_driver_root_after_a_crash(paths: Paths) -> Paths:
    """The same, where the process is dead."""
    in_driver_root(paths)
    (paths.proc / f"{PID}/root").unlink()
    (paths.proc / "locks").write_text("")
    make_tree(paths.root, {"proc/self/ns/pid": "-> pid:[4026531836]"})
    return paths


STATES = {
    made.__name__: made
    for made in (
        bare,
        with_gpu,
        starting,
        retrying,
        serving,
        degraded,
        used,
        not_ready,
        failed,
        crashed,
        stopped,
        in_driver_root,
        in_driver_root_after_a_crash,
    )
}


def folder_of(paths: Paths) -> Path:
    """The store of a node, made."""
    store = paths.root / "var/lib/driverctr/store"
    store.mkdir(parents=True, exist_ok=True)
    return store
