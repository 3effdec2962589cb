"""Debian's kernels: found, fetched and unpacked into what QEMU boots and what the guest mounts."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from harness import apt, cache, proc, vmhost
from harness.errors import HarnessError

DEFAULT = "6.1"
FLAVOUR = "-amd64"
# The archive's backports hold the newer kernels (6.12 on bookworm).
EXTRA_SUITES = ("backports",)
ELF_MAGIC = b"\x7fELF"
XZ_MAGIC = b"\xfd7zXZ\0"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Kernel:
    """One kernel release, unpacked in the cache.

    `tree` and `headers` are laid out as on a host (usr/lib/modules, boot / usr/src); the disks hold the same.
    """

    release: str
    vmlinux: Path
    tree: Path
    disk: Path
    headers: Path
    headers_disk: Path


@once
def get(wanted: str = DEFAULT) -> Kernel:
    """Return a kernel by release or by the beginning of one (6.1, 6.12), which means the newest such.

    Fetches and unpacks it if the cache has none; what is offered is asked once per process, since apt takes a second
    to tell. Raises HarnessError if none is offered.
    """
    release = resolve(wanted)
    image = image_package(release)
    sources = apt.sources(EXTRA_SUITES)
    versions = apt.versions([image], sources)
    made = cache.entry("kernel", [release, versions.get(image, "")], lambda to: _make(to, release, sources))
    return Kernel(
        release=release,
        vmlinux=made / "vmlinux",
        tree=made / "tree",
        disk=made / "kernel.erofs",
        headers=made / "headers",
        headers_disk=made / "headers.erofs",
    )


def available() -> list[str]:
    """Return the releases that the archive offers with their headers, oldest first."""
    sources = apt.sources(EXTRA_SUITES)
    images = {release_of(name) for name in apt.names("linux-image-", sources)}
    headers = {name.removeprefix("linux-headers-") for name in apt.names("linux-headers-", sources)}
    return sorted((r for r in images & headers if r), key=order)


def resolve(wanted: str) -> str:
    """Return the newest release offered that is, or begins with, what is wanted; raises HarnessError if none."""
    offered = available()
    found = newest(wanted, offered)
    if found is None:
        raise HarnessError(
            f"no kernel {wanted} with headers in this machine's package sources",
            f"Offered: {', '.join(offered) or 'none'}",
        )
    return found


def newest(wanted: str, releases: list[str]) -> str | None:
    """Return the last of the releases, given oldest first, that `wanted` names: whole, or up to a separator."""
    matching = [r for r in releases if r == wanted or re.match(re.escape(wanted) + r"[.+-]", r)]
    return matching[-1] if matching else None


def release_of(package: str) -> str | None:
    """Return the release of a kernel image package of our flavour, None for any other package."""
    match = re.fullmatch(r"linux-image-(\d+\.\d+\.\d+[-+].*)", package)
    release = match.group(1) if match else ""
    special = any(f"-{word}-" in release for word in ("rt", "cloud"))
    return release if release.endswith(FLAVOUR) and not special else None


def order(release: str) -> tuple[int, ...]:
    """Return a key that sorts releases by their numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", release.removesuffix(FLAVOUR)))


def image_package(release: str) -> str:
    """Return the package that holds the kernel and its modules."""
    return f"linux-image-{release}"


def header_packages(release: str, sources: str) -> list[str]:
    """Return the packages that together make /lib/modules/RELEASE/build usable: flavour, common part, kbuild."""
    flavour = f"linux-headers-{release}"
    shown = proc.run(["apt-cache", *apt.options(sources), "show", "--no-all-versions", flavour])
    depends = re.findall(r"\b(linux-(?:headers|kbuild)-[\w.+-]+)", _field(shown, "Depends"))
    if not depends:
        raise HarnessError(f"{flavour} names no common headers and no kbuild package")
    return [flavour, *dict.fromkeys(depends)]


def extract_vmlinux(image: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage, so that QEMU need not emulate its decompression.

    Offsets: Linux boot protocol 2.08 and later (Documentation/arch/x86/boot.rst): setup_sects at 0x1f1,
    payload_offset and payload_length at 0x248. Raises HarnessError for a payload neither xz nor zstd.
    """
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload.startswith(XZ_MAGIC):
        elf = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(ZSTD_MAGIC):
        # The last four bytes are the unpacked size, not part of the zstd stream.
        elf = unzstd(payload[:-4])
    else:
        raise HarnessError(f"kernel payload begins with {payload[:6].hex()}: neither xz nor zstd")
    if not elf.startswith(ELF_MAGIC):
        raise HarnessError("the kernel's payload is no ELF file")
    return elf


def unzstd(packed: bytes) -> bytes:
    """Return zstd data unpacked (the standard library of Python 3.11 cannot)."""
    return proc.run_bytes([proc.need("zstd", "zstd"), "-dc"], packed)


def module_files(tree: Path, release: str, names: list[str]) -> list[Path]:
    """Return the files of modules and of all they depend on, in the order to load them; built-in ones are left out.

    `tree` is a root with usr/lib/modules.
    """
    found: dict[Path, None] = {}
    for name in names:
        shown = proc.run(["modprobe", "-d", tree / "usr", "-S", release, "--show-depends", name])
        for line in shown.splitlines():
            kind, _, path = line.partition(" ")
            if kind == "insmod":
                found[Path(path.strip())] = None
    return list(found)


def module_content(path: Path) -> bytes:
    """Return a module unpacked: busybox insmod knows no compression, and 6.1 loads none by itself."""
    packed = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(packed)
    return unzstd(packed) if path.suffix == ".zst" else packed


def _field(stanza: str, name: str) -> str:
    match = re.search(rf"^{name}: (.*)$", stanza, re.MULTILINE)
    return match.group(1) if match else ""


def _make(to: Path, release: str, sources: str) -> None:
    debs = to / "debs"
    tree, headers = to / "tree", to / "headers"
    (image,) = apt.download([image_package(release)], debs, sources)
    _unpack(image, tree)
    for deb in apt.download(header_packages(release, sources), debs, sources):
        _unpack(deb, headers)
    shutil.rmtree(debs)
    proc.run(["depmod", "-b", tree / "usr", release])
    (to / "vmlinux").write_bytes(extract_vmlinux((tree / f"boot/vmlinuz-{release}").read_bytes()))
    vmhost.pack(tree, to / "kernel.erofs")
    vmhost.pack(headers, to / "headers.erofs")


def _unpack(deb: Path, root: Path) -> None:
    """Unpack a package, /lib moved to /usr/lib as it is on every merged-usr host."""
    proc.run(["dpkg-deb", "-x", deb, root])
    lib = root / "lib"
    if lib.is_dir() and not lib.is_symlink():
        shutil.copytree(lib, root / "usr/lib", symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(lib)
    shutil.rmtree(root / "usr/share", ignore_errors=True)
