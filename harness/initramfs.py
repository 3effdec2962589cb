"""Initial root file systems for the guest, written as cpio archives without any file system or root rights."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

from harness import cache, kernels, modules, vmhost
from harness.kernels import Kernel
from harness.vmhost import Root

FOLDER, PROGRAM, PLAIN = 0o040755, 0o100755, 0o100644
SYMLINK, DEVICE = 0o120777, 0o020600
CONSOLE = (5, 1)
# To reach the root: the bus, the disks, the console for output, the shared folders, the file systems.
NEEDED = ("virtio_pci", "virtio_blk", "virtio_console", "9pnet_virtio", "9p", "erofs", "overlay")
APPLETS = ("sh", "mount", "insmod", "switch_root", "mkdir", "cat", "tr", "cp", "dd", "sleep")
EMPTY = ("proc", "sys", "dev", "writable", "lower", "newroot")
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One file of the archive: its mode with the file type, content (a link's target), device numbers."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def host(kernel: Kernel, root: Root) -> Path:
    """Return the initramfs that boots the packed root with this kernel, made once per kernel and init files."""
    built = modules.build_for(kernel)
    key: list[cache.KeyPart] = [FORMAT, str(kernel.vmlinux), str(root.busybox), str(built)]
    key += [vmhost.VM_HOST, *NEEDED]
    return cache.entry("vm-initramfs", key, lambda to: _write_host(to, kernel, root, built)) / "initramfs.gz"


def probe(root: Root) -> Path:
    """Return an initramfs that only ends the machine, with status 1 through isa-debug-exit (QEMU exits with 3)."""
    script = b"#!/bin/sh\nprintf '\\001' | dd of=/dev/port bs=1 seek=244 conv=notrunc\nsleep 60\n"
    files = _base(root) | {
        "init": Entry(PROGRAM, b"#!/bin/sh\nmount -t devtmpfs dev /dev\nexec sh /end\n"),
        "end": Entry(PLAIN, script),
    }
    key: list[cache.KeyPart] = [FORMAT, str(root.busybox), script, "probe"]
    return cache.entry("vm-initramfs", key, lambda to: _write(to / "initramfs.gz", files)) / "initramfs.gz"


def archive(files: dict[str, Entry]) -> bytes:
    """Return a cpio archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format)."""
    body = bytearray()
    for number, (name, entry) in enumerate([*files.items(), ("TRAILER!!!", Entry(0))], start=1):
        path = name.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(path), 0)
        body += b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (path, entry.data):
            body += part
            body += b"\0" * (-len(body) % 4)
    return bytes(body)


def _write_host(to: Path, kernel: Kernel, root: Root, built: Path) -> None:
    loaded = kernels.module_files(kernel.tree, kernel.release, list(NEEDED))
    names = [path.name.removesuffix(".xz").removesuffix(".zst") for path in loaded]
    files = _base(root) | {
        "init": Entry(PROGRAM, (vmhost.VM_HOST / "initramfs-init").read_bytes()),
        "modules": Entry(FOLDER),
        "modules/order": Entry(PLAIN, "".join(f"{name}\n" for name in names).encode()),
        "vm-host": Entry(FOLDER),
        "vm-host/modules": Entry(FOLDER),
    }
    for name, path in zip(names, loaded, strict=True):
        files[f"modules/{name}"] = Entry(PLAIN, kernels.module_content(path))
    for name in ("init", "lib.sh", "shellrc"):
        files[f"vm-host/{name}"] = Entry(PLAIN, (vmhost.VM_HOST / name).read_bytes())
    for path in sorted(built.glob("*.ko")):
        files[f"vm-host/modules/{path.name}"] = Entry(PLAIN, path.read_bytes())
    _write(to / "initramfs.gz", files)


def _base(root: Root) -> dict[str, Entry]:
    files = {name: Entry(FOLDER) for name in (*EMPTY, "bin")}
    # The kernel opens it for the first program before anything mounts /dev.
    files["dev/console"] = Entry(DEVICE, device=CONSOLE)
    files["bin/busybox"] = Entry(PROGRAM, root.busybox.read_bytes())
    return files | {f"bin/{name}": Entry(SYMLINK, b"busybox") for name in APPLETS}


def _write(path: Path, files: dict[str, Entry]) -> None:
    path.write_bytes(gzip.compress(archive(files), compresslevel=1))
