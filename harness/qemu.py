"""The QEMU command line, in parts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from harness import proc

PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"
# Where the emulated GPU's memory lies: RAM that the guest's kernel is told to leave alone.
GPU_MEMORY = "memmap=512M$0x60000000"


class Accelerator(StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"

    def arguments(self, *, parallel: bool) -> list[str]:
        """Return QEMU's arguments for it, and a processor that goes with it.

        Several processors of TCG take turns unless `parallel`: side by side, one may run a breakpoint that another has
        already taken out of the kernel's text again (text_poke), and the kernel dies of it ("Oops: int3"; 6.12 often).

        TCG carries out AVX one element at a time: libcrypto's SHA-256 with it is slower than without, as on no
        processor. Without xsave no program uses AVX. It carries out `rep movsb` and `rep stosb` one byte at a time:
        without erms the kernel copies and clears pages by whole words.
        """
        if self is Accelerator.KVM:
            return ["-accel", "kvm", "-cpu", "host"]
        threads = "multi" if parallel else "single"
        return ["-accel", f"tcg,thread={threads},tb-size=512", "-cpu", "max,xsave=off,erms=off"]


def machine(accelerator: Accelerator, *, memory_mb: int, cpus: int, parallel: bool = False) -> list[str]:
    """Return the command up to the machine: no default devices, a panic's reboot ends it, dies with its parent."""
    return [
        *_tied_to_parent(),
        str(proc.need(PROGRAM, PACKAGE)),
        *accelerator.arguments(parallel=parallel),
        *("-machine", "pc", "-m", str(memory_mb), "-smp", str(cpus)),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
        *("-device", "virtio-rng-pci"),
    ]


def boot(vmlinux: Path, initramfs: Path, command_line: str) -> list[str]:
    """Return the arguments that boot an unpacked kernel (through PVH)."""
    return ["-kernel", str(vmlinux), "-initrd", str(initramfs), "-append", command_line]


def disks(paths: list[Path]) -> list[str]:
    """Return the arguments for read-only disks; in this order the guest calls them vda, vdb and so on."""
    return [word for path in paths for word in ("-drive", f"file={path},if=virtio,format=raw,readonly=on")]


def scratch(path: Path) -> list[str]:
    """Return the arguments for a disk that begins as this file and whose changes go with the machine."""
    return ["-drive", f"file={path},if=virtio,format=raw,snapshot=on,cache=unsafe"]


def kept(path: Path) -> list[str]:
    """Return the arguments for a disk that is this file."""
    return ["-drive", f"file={path},if=virtio,format=raw,cache=unsafe"]


def share(tag: str, path: Path, *, readonly: bool) -> list[str]:
    """Return the arguments for a folder shared by 9p."""
    mode = ",readonly=on" if readonly else ""
    return [
        *("-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{mode}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def console(log: Path) -> list[str]:
    """Return the arguments for a serial console kept in a file: the kernel's messages."""
    return ["-serial", f"file:{log}"]


def output(log: Path | None) -> list[str]:
    """Return the arguments for the job's terminal, kept in a file, or joined to our own standard streams if None."""
    target = f"file,id=output,path={log}" if log else "stdio,id=output,signal=off"
    return ["-device", "virtio-serial-pci", "-chardev", target, "-device", "virtconsole,chardev=output"]


def _tied_to_parent() -> list[str]:
    # A killed test run must not leave machines behind.
    return ["setpriv", "--pdeathsig", "KILL"]
