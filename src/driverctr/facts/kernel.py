"""The kernel: the one that runs, or one whose headers or files lie here."""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from driverctr.errors import DriverError
from driverctr.facts.hostroot import HostRoot, host_roots
from driverctr.files import read_text
from driverctr.records import frozen, replace

NT_GNU_BUILD_ID = 3
"""elf.h"""

SETUP_MAGIC = b"HdrS"
SETUP_LIMIT = 0x10000 + 0x400
"""Bytes at the head of an x86 kernel image that can hold its version (Documentation/arch/x86/boot.rst)."""


@frozen
class KernelFacts:
    """What identifies a kernel; an empty text stands for what cannot be known here."""

    release: str
    version: str
    architecture: str
    build_id: str
    cc_version_text: str
    builtin: frozenset[str]
    running: bool


def read(root: Path = Path("/"), release: str | None = None) -> KernelFacts:
    """What is known of the running kernel, or of `release`; needs no headers, no compiler, no privilege.

    Of one that does not run, the version is what its image or its headers on the host tell; its build-id lies packed
    in the image and is left unknown.
    """
    return _complete(root, _identify(root, release))


def read_installed(root: Path, release: str) -> KernelFacts:
    """What is known of the kernel that a boot of `release` would start."""
    return _complete(root, identify_installed(root, release))


def identify_installed(root: Path, release: str) -> KernelFacts:
    """What of that tells the kernel from others: nothing of its compiler, nor of what is built in.

    Under the name of the running kernel another build of it may be installed; the boot image alone tells that, since
    headers need not be of the same build.
    """
    known = _identify(root, release)
    installed = version_of_images(release, host_roots(root)) if known.running else ""
    if installed in ("", known.version):
        return known
    return replace(known, version=installed, build_id="", running=False)


def _identify(root: Path, release: str | None) -> KernelFacts:
    running = read_text(root / "proc/sys/kernel/osrelease") or ""
    wanted = release or running
    is_running = wanted == running
    return KernelFacts(
        release=wanted,
        version=(read_text(root / "proc/sys/kernel/version") or "")
        if is_running
        else version_of_release(wanted, host_roots(root)),
        architecture=os.uname().machine,
        build_id=running_build_id(root) if is_running else "",
        cc_version_text="",
        builtin=frozenset(),
        running=is_running,
    )


def _complete(root: Path, known: KernelFacts) -> KernelFacts:
    places = host_roots(root)
    is_running = known.release == (read_text(root / "proc/sys/kernel/osrelease") or "")
    compiler = compiler_of_release(known.release, places) or (compiler_of_running(root) if is_running else "")
    return replace(known, cc_version_text=compiler, builtin=builtin_modules(known.release, places))


def version_of_release(release: str, places: tuple[HostRoot, ...]) -> str:
    """`uname -v` of a kernel whose image or headers the host has, else empty; the image is what will run."""
    return version_of_images(release, places) or version_of_headers(release, places)


def version_of_images(release: str, places: tuple[HostRoot, ...]) -> str:
    """`uname -v` from the boot image of a kernel: /boot/vmlinuz-*, or beside its modules (Fedora, SLES)."""
    for place in places:
        for name in (Path("/boot") / f"vmlinuz-{release}", Path("/lib/modules") / release / "vmlinuz"):
            try:
                image = place.resolve(name)
            except DriverError:
                continue
            if text := version_of_image(image, release):
                return text
    return ""


def version_of_image(image: Path, release: str) -> str:
    """`uname -v` from the setup header of an x86 kernel image; empty for any other file, or another release's.

    The string is "RELEASE (BY@HOST) VERSION" (arch/x86/boot/version.c), at the 16-bit offset in 0x20E plus 0x200.
    """
    try:
        with image.open("rb") as file:
            head = file.read(SETUP_LIMIT)
    except OSError:
        return ""
    if head[0x202:0x206] != SETUP_MAGIC or len(head) < 0x210:
        return ""
    at = 0x200 + int.from_bytes(head[0x20E:0x210], "little")
    found = re.match(rb"(\S+) \(.*?\) (#[^\0]*)\0", head[at:])
    return found[2].decode(errors="replace") if found and found[1].decode(errors="replace") == release else ""


def version_of_headers(release: str, places: tuple[HostRoot, ...]) -> str:
    """`uname -v` from the headers of a kernel on the host; empty where there are none, or another release's."""
    return next(filter(None, map(version_of_tree, header_trees(release, places))), "")


def header_trees(release: str, places: tuple[HostRoot, ...]) -> Iterator[Path]:
    """The headers of a kernel wherever the host shows them, the surest first; another release's are none."""
    for place in places:
        try:
            build = place.resolve(Path("/lib/modules") / release / "build")
        except DriverError:
            continue
        if f'"{release}"' in (read_text(build / "include/generated/utsrelease.h") or ""):
            yield build


def version_of_tree(build_dir: Path) -> str:
    """`uname -v` of the kernel: in utsversion.h since 6.1, in compile.h before; empty where the headers lack it."""
    for name in ("utsversion.h", "compile.h"):
        if found := re.search(r'UTS_VERSION "([^"]*)"', read_text(build_dir / "include/generated" / name) or ""):
            return found.group(1)
    return ""


def compares_symbols(build_dir: Path) -> bool:
    """Whether the kernel compares the versions of the symbols a module uses, as it loads it (CONFIG_MODVERSIONS)."""
    return "\nCONFIG_MODVERSIONS=y" in f"\n{read_text(build_dir / 'include/config/auto.conf') or ''}"


def running_build_id(root: Path) -> str:
    """The GNU build-id of the running kernel, from its ELF notes; empty where the kernel has none."""
    try:
        return build_id_of_notes((root / "sys/kernel/notes").read_bytes())
    except OSError:
        return ""


def build_id_of_notes(notes: bytes) -> str:
    """The GNU build-id among ELF notes (elf(5), "Notes"), in hexadecimal; empty where there is none."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("=III", notes, at)
        name_at = at + 12
        value_at = name_at + _padded(name_size)
        if kind == NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
            return notes[value_at : value_at + size].hex()
        at = value_at + _padded(size)
    return ""


def _padded(size: int) -> int:
    return (size + 3) & ~3


def config_value(text: str, name: str) -> str:
    """A string setting of a kernel configuration, without its quotes; empty where it is not set."""
    _, found, rest = f"\n{text}".partition(f"\n{name}=")
    return rest.partition("\n")[0].strip().strip('"') if found else ""


def compiler_of_tree(build_dir: Path) -> str:
    """CONFIG_CC_VERSION_TEXT of a headers tree; empty where its configuration is missing."""
    for name in ("include/config/auto.conf", ".config"):
        if text := config_value(read_text(build_dir / name) or "", "CONFIG_CC_VERSION_TEXT"):
            return text
    return ""


def compiler_of_release(release: str, places: tuple[HostRoot, ...]) -> str:
    """CONFIG_CC_VERSION_TEXT of a kernel whose headers or configuration the host has."""
    for place in places:
        try:
            if text := compiler_of_tree(place.resolve(Path("/lib/modules") / release / "build")):
                return text
        except DriverError:
            pass
        boot = read_text(place.path / "boot" / f"config-{release}") or ""
        if text := config_value(boot, "CONFIG_CC_VERSION_TEXT"):
            return text
    return ""


def compiler_of_running(root: Path) -> str:
    """The compiler that /proc/version names: `(gcc-12 (Debian ...) 12.2.0, GNU ld ...)`."""
    found = re.search(r"\(((?:\S*gcc|clang|\S+ clang)\S* .*?), (?:GNU ld|LLD)", read_text(root / "proc/version") or "")
    return found.group(1) if found else ""


def builtin_modules(release: str, places: tuple[HostRoot, ...]) -> frozenset[str]:
    """Names of modules built into the kernel, as lsmod would write them."""
    for place in places:
        try:
            path = place.resolve(Path("/lib/modules") / release / "modules.builtin")
        except DriverError:
            continue
        if (text := read_text(path)) is not None:
            names = (line.rpartition("/")[2].partition(".")[0] for line in text.splitlines() if line)
            return frozenset(name.replace("-", "_") for name in names)
    return frozenset()
