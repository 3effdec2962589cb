"""Whether KVM works here: found out by a tiny boot, since a device node alone proves nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness import cache, initramfs, qemu
from harness.kernels import Kernel
from harness.vmhost import Root

DEVICE = Path("/dev/kvm")
# A boot under KVM takes a second; where the guest hangs, nothing comes however long one waits.
PROBE_LIMIT = 10.0
PROBE_EXIT = 3


def accelerator(kernel: Kernel, root: Root) -> qemu.Accelerator:
    """Return KVM if a guest boots and ends with it, else software emulation; asked once per boot of the machine."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return qemu.Accelerator.TCG
    answer = cache.entry("kvm-probe", [_boot_id()], lambda to: _record(to, kernel, root))
    return qemu.Accelerator((answer / "accelerator").read_text())


def _record(to: Path, kernel: Kernel, root: Root) -> None:
    chosen = qemu.Accelerator.KVM if _works(kernel, root) else qemu.Accelerator.TCG
    (to / "accelerator").write_text(chosen)


def _works(kernel: Kernel, root: Root) -> bool:
    argv = qemu.machine(qemu.Accelerator.KVM, memory_mb=256, cpus=1)
    argv += qemu.boot(kernel.vmlinux, initramfs.probe(root), "console=ttyS0 quiet panic=-1")
    try:
        done = subprocess.run(
            [*argv, "-serial", "null"], stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_LIMIT
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == PROBE_EXIT


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
