"""The kernel: the one that runs, or one whose headers or files lie here."""

import os
import re
import struct
from pathlib import Path

from driverctr.errors import DriverError
from driverctr.facts.hostroot import HostRoot, host_roots
from driverctr.files import read_text
from driverctr.records import frozen

NT_GNU_BUILD_ID = 3
"""elf.h"""


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
    """What is known of the running kernel, or of `release`; needs no headers, no compiler, no privilege."""
    running = read_text(root / "proc/sys/kernel/osrelease") or ""
    wanted = release or running
    is_running = wanted == running
    places = host_roots(root)
    compiler = compiler_of_release(wanted, places)
    return KernelFacts(
        release=wanted,
        version=(read_text(root / "proc/sys/kernel/version") or "") if is_running else "",
        architecture=os.uname().machine,
        build_id=running_build_id(root) if is_running else "",
        cc_version_text=compiler or (compiler_of_running(root) if is_running else ""),
        builtin=builtin_modules(wanted, places),
        running=is_running,
    )


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
