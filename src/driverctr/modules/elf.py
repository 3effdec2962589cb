"""What a module file says of itself, read from its ELF sections without starting a process."""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.facts.kernel import build_id_of_notes
from driverctr.records import frozen

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


def read(path: Path) -> ModuleInfo:
    """The build-id note, the .modinfo fields (the first of each name) and the parameters of a module file.

    Raises DriverError (no-modules) where the file is no 64-bit ELF object or is cut short; OSError where unreadable.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                sections = _sections(data)
                machine = MACHINES.get(HEADER.unpack_from(data)[1], "another processor")
        except (ValueError, struct.error) as error:
            raise DriverError(Code.NO_MODULES, f"{path} is not a whole 64-bit ELF module: {error}") from error
    fields: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for entry in sections.get(".modinfo", b"").split(b"\0"):
        name, separator, value = entry.decode(errors="replace").partition("=")
        if separator:
            fields.setdefault(name, value)
        if name == "parmtype":  # linux/moduleparam.h: each parameter has one, its description may be missing
            parameter, _, kind = value.partition(":")
            parameters[parameter] = kind
    build_id = build_id_of_notes(sections.get(".note.gnu.build-id", b""))
    return ModuleInfo(build_id, fields, parameters, machine)


def read_elf_build_id(path: Path) -> str:
    """The GNU build-id of a module file, which equals /sys/module/<name>/notes/.note.gnu.build-id once loaded."""
    return read(path).build_id


def _sections(data: mmap.mmap) -> dict[str, bytes]:
    """The two sections we read, by name; raises ValueError or struct.error on anything else than a whole module."""
    if data[:6] != MAGIC_64_LITTLE:
        raise ValueError("wrong magic number")
    _, _, _, _, _, table, _, _, _, _, size, count, names_index = HEADER.unpack_from(data)
    headers = [SECTION.unpack_from(data, table + number * size) for number in range(count)]
    if names_index >= count:
        raise ValueError("no section names")
    _, _, _, _, names_at, names_size, *_ = headers[names_index]
    names = data[names_at : names_at + names_size]
    found: dict[str, bytes] = {}
    for name_at, _, _, _, offset, length, *_ in headers:
        name = names[name_at : names.find(b"\0", name_at)].decode(errors="replace")
        if name in (".modinfo", ".note.gnu.build-id"):
            if offset + length > len(data):
                raise ValueError("cut short")
            found[name] = data[offset : offset + length]
    return found
