"""Names of devices, from the PCI id database: pci.ids of the image, or else of the host.

Its format is told in its own head: a line per vendor (`10de  NVIDIA Corporation`), below it, after one tab, a line per
device (`20b0  GA100 [A100 SXM4 40GB]`), after two tabs its subsystems. It has 1.5 MB, so nothing of it is parsed: two
searches for bytes find a name.
"""

import mmap
from collections.abc import Collection
from pathlib import Path

from driverctr.errors import DriverError
from driverctr.facts import hostroot
from driverctr.paths import Paths

FILES = (Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids"))
"""Where Debian and Ubuntu (package pci.ids), and Fedora, RHEL and SLES (package hwdata) have it."""


def names(paths: Paths, vendor: int, devices: Collection[int]) -> dict[int, str]:
    """The names of a vendor's devices, by id; what no database knows is left out."""
    if not devices:
        return {}
    for file in _files(paths):
        try:
            with file.open("rb", buffering=0) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return {device: name for device in devices if (name := find(text, vendor, device))}
        except (OSError, ValueError):  # the second for an empty file
            continue
    return {}


def find(text: bytes | mmap.mmap, vendor: int, device: int) -> str:
    """One name in the text of a database, "" where it does not know the device."""
    begin = text.find(b"\n%04x  " % vendor)
    if begin < 0:
        return ""
    at = text.find(b"\n\t%04x  " % device, begin)
    end = text.find(b"\n", at + 1)
    if at < 0 or end < 0 or _has_other_vendor(text[text.find(b"\n", begin + 1) : at]):
        return ""
    name = text[at + 8 : end]
    return name.decode(errors="replace").strip()


def _has_other_vendor(section: bytes) -> bool:
    """Whether a line of it begins with neither a tab nor #: the device found is another vendor's."""
    lines, indented = section.count(b"\n"), section.count(b"\n\t") + section.count(b"\n#")
    return lines > indented


def _files(paths: Paths) -> list[Path]:
    found = [file for name in FILES if (file := paths.root / name.relative_to("/")).is_file()]
    host = None if found else hostroot.process_root(paths.root)
    if host is not None:
        for name in FILES:
            try:
                found.append(host.resolve(name))
            except DriverError:
                continue
    return found
