"""Small ELF files that look like kernel modules, for tests."""

import struct
from collections.abc import Mapping
from pathlib import Path

NAMES = b"\0.modinfo\0.note.gnu.build-id\0.shstrtab\0"


def module_bytes(
    fields: Mapping[str, str], build_id: bytes = b"\xab" * 20, parameters: Mapping[str, str] | None = None
) -> bytes:
    """A relocatable ELF object with the sections that identify a module; `parameters` are names with their types."""
    words = [*fields.items(), *(("parmtype", f"{name}:{kind}") for name, kind in (parameters or {}).items())]
    info = b"".join(f"{name}={value}".encode() + b"\0" for name, value in words)
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id
    contents = [(b".modinfo", info), (b".note.gnu.build-id", note), (b".shstrtab", NAMES)]
    body, headers, at = b"", [bytes(64)], 64
    for name, content in contents:
        offset = NAMES.index(b"\0" + name) + 1
        headers.append(struct.pack("<IIQQQQIIQQ", offset, 1, 0, 0, at + len(body), len(content), 0, 0, 1, 0))
        body += content
    table = at + len(body)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, len(headers), len(contents))
    return head + body + b"".join(headers)


def write_module(path: Path, release: str, version: str = "535.309.01", build_id: bytes = b"\xab" * 20) -> Path:
    """A module file built for a kernel release."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"version": version, "srcversion": "0123456789ABCDEF", "vermagic": f"{release} SMP preempt mod_unload "}
    path.write_bytes(module_bytes(fields, build_id))
    return path
