"""NVIDIA's functions on the PCI bus as sysfs tells them, for a report: much of what `lspci -vvv` shows, without it."""

from collections.abc import Iterator
from pathlib import Path

from driverctr.facts import gpus
from driverctr.facts.gpus import VENDOR_NVIDIA, read_number
from driverctr.files import link_target, read_text
from driverctr.paths import Paths

CONFIGURATION = 256
"""Bytes of a function's configuration space that every one has (PCI Local Bus, 6.1); others than root see 64."""

ABSENT = 0xFF
"""What every byte reads as where a function has fallen off the bus."""

MEMORY, PREFETCHABLE, WIDE, BEHIND = 0x200, 0x2000, 0x100000, 0x100
"""Flags of a resource: memory, that may be read ahead, of 64 bits; and ports (Linux, include/linux/ioport.h)."""

ATTRIBUTES = (
    ("class", "class"),
    ("revision", "revision"),
    ("subsystem_vendor", "subsystem vendor"),
    ("subsystem_device", "subsystem device"),
    ("driver_override", "driver override"),
    ("enable", "enabled"),
    ("power_state", "power state"),
    ("power/runtime_status", "runtime power"),
    ("numa_node", "NUMA node"),
    ("current_link_speed", "link speed"),
    ("current_link_width", "link width"),
    ("max_link_speed", "greatest link speed"),
    ("max_link_width", "greatest link width"),
    ("reset_method", "reset methods"),
    ("sriov_numvfs", "virtual functions"),
    ("sriov_totalvfs", "virtual functions at most"),
    ("aer_dev_fatal", "fatal errors"),
    ("aer_dev_nonfatal", "non-fatal errors"),
    ("aer_dev_correctable", "corrected errors"),
)
"""Files of sysfs, and what they are called here (Linux, Documentation/ABI/testing/sysfs-bus-pci)."""


def describe(paths: Paths) -> str:
    """A paragraph for each function of NVIDIA's, and for the bridges above it a line."""
    found = gpus.functions(paths, VENDOR_NVIDIA)
    if not found:
        return f"no function of NVIDIA's ({VENDOR_NVIDIA:04x}) on the PCI bus, as {paths.pci_devices} tells\n"
    return "\n".join("".join(f"{line}\n" for line in _describe(folder)) for folder in found)


def _describe(folder: Path) -> Iterator[str]:
    yield f"{folder.name} {_ids(folder)}, driver {link_target(folder / 'driver') or 'none'}"
    yield from (f"    above it: {bridge.name} {_ids(bridge)}" for bridge in _bridges(folder))
    yield f"    IOMMU group: {link_target(folder / 'iommu_group') or 'none'}"
    for file, name in ATTRIBUTES:
        if text := read_text(folder / file):
            yield f"    {name}: {'; '.join(text.split(chr(10)))}"
    yield from _resources(folder)
    yield from _configuration(folder)


def _ids(folder: Path) -> str:
    return f"{read_number(folder / 'vendor'):04x}:{read_number(folder / 'device'):04x}"


def _bridges(folder: Path) -> list[Path]:
    """From the root port down: devices lie in their bridge's folder (Linux, Documentation/filesystems/sysfs.rst)."""
    return [above for above in reversed(folder.resolve().parents) if (above / "vendor").is_file()]


def _resources(folder: Path) -> Iterator[str]:
    """Lines of `start end flags`: six base address registers, the expansion ROM, and what a bridge has."""
    for number, line in enumerate((read_text(folder / "resource") or "").splitlines()):
        try:
            start, end, flags = (int(word, 16) for word in line.split())
        except ValueError:
            continue
        if flags:
            kinds = [
                "memory" if flags & MEMORY else "ports" if flags & BEHIND else f"flags {flags:#x}",
                *(["64-bit"] if flags & WIDE else []),
                *(["prefetchable"] if flags & PREFETCHABLE else []),
            ]
            place = f"{start:#x}-{end:#x} ({(end - start + 1) >> 10} KiB)" if end else "not assigned"
            yield f"    resource {number}: {place} {', '.join(kinds)}"


def _configuration(folder: Path) -> Iterator[str]:
    try:
        with (folder / "config").open("rb", buffering=0) as file:
            content = file.read(CONFIGURATION)
    except OSError as error:
        yield f"    configuration: not to be read: {error.strerror}"
        return
    if content and set(content) == {ABSENT}:
        yield "    configuration: every byte is ff: it does not answer on the bus"
        return
    for at in range(0, len(content), 16):
        yield f"    {at:02x}: {content[at : at + 16].hex(' ')}"
