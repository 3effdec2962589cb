"""What a module file says of itself, read from its ELF sections without starting a process."""

import os
import struct
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.facts.kernel import build_id_of_notes
from driverctr.hashing import open_regular
from driverctr.records import field, frozen

MAGIC_64_LITTLE = b"\x7fELF\x02\x01"
HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
"""Elf64_Ehdr and Elf64_Shdr of elf(5); every kernel we build for is 64-bit, little-endian."""


MACHINES = {62: "x86_64", 183: "aarch64"}
"""e_machine of elf.h, for the processors that NVIDIA's driver is made for."""


@frozen
class ModuleInfo:
    """Fields that identify a module's build, its parameters' types by name, and its processor as uname(1) says it."""

    build_id: str
    fields: dict[str, str]
    parameters: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""

    def field(self, name: str) -> str:
        """A field as modinfo(8) shows it; empty where the module has none."""
        return self.fields.get(name, "")

    @property
    def needed(self) -> tuple[str, ...]:
        """The modules whose symbols it uses (`depends=`, written by modpost from the kernel's and our own symbols)."""
        return tuple(filter(None, self.field("depends").split(",")))

    @property
    def wanted_before(self) -> tuple[str, ...]:
        """The modules it asks for before it loads (MODULE_SOFTDEP("pre: ..."), where NVIDIA's has commas too)."""
        words = self.field("softdep").replace(",", " ").split()
        before = words[words.index("pre:") + 1 :] if "pre:" in words else []
        return tuple(before[: before.index("post:")] if "post:" in before else before)


def read(path: Path) -> ModuleInfo:
    """The build-id note, the .modinfo fields (the first of each name, but every softdep), the parameters of a module.

    Raises DriverError (no-modules) where the file is no 64-bit ELF object or is cut short; OSError where unreadable.
    """
    with FileIO(path, opener=open_regular) as file:
        try:
            machine, sections = _read_sections(file)
        except (ValueError, struct.error) as error:
            raise DriverError(Code.NO_MODULES, f"{path} is not a whole 64-bit ELF module: {error}") from error
    fields: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for entry in sections.get(".modinfo", b"").split(b"\0"):
        name, separator, value = entry.decode(errors="replace").partition("=")
        if separator:
            fields[name] = (
                f"{fields[name]} {value}" if name in fields and name == "softdep" else fields.get(name, value)
            )
        if name == "parmtype":  # linux/moduleparam.h: each parameter has one, its description may be missing
            parameter, _, kind = value.partition(":")
            parameters[parameter] = kind
    build_id = build_id_of_notes(sections.get(".note.gnu.build-id", b""))
    return ModuleInfo(build_id, fields, parameters, MACHINES.get(machine, "another processor"))


def read_elf_build_id(path: Path) -> str:
    """The GNU build-id of a module file, which equals /sys/module/<name>/notes/.note.gnu.build-id once loaded."""
    return read(path).build_id


def _read_sections(file: FileIO) -> tuple[int, dict[str, bytes]]:
    """The machine, and by name the two sections we read; raises ValueError or struct.error where it is no whole module.

    A few short reads: a mapping of tens of megabytes costs more, and a file that is cut short meanwhile would kill us.
    """
    header = _read_at(file, 0, HEADER.size)
    if header[:6] != MAGIC_64_LITTLE:
        raise ValueError("wrong magic number")
    _, machine, _, _, _, table, _, _, _, _, size, count, names_index = HEADER.unpack(header)
    sections = _read_at(file, table, count * size)
    headers = [SECTION.unpack_from(sections, number * size) for number in range(count)]
    if names_index >= count:
        raise ValueError("no section names")
    _, _, _, _, names_at, names_size, *_ = headers[names_index]
    names = _read_at(file, names_at, names_size)
    found: dict[str, bytes] = {}
    for name_at, _, _, _, offset, length, *_ in headers:
        name = names[name_at : names.find(b"\0", name_at)].decode(errors="replace")
        if name in (".modinfo", ".note.gnu.build-id"):
            found[name] = _read_at(file, offset, length)
    return machine, found


def _read_at(file: FileIO, offset: int, size: int) -> bytes:
    """A part of the file; raises ValueError where it has none such."""
    if offset + size > os.fstat(file.fileno()).st_size:
        raise ValueError("cut short")
    return os.pread(file.fileno(), size, offset)
