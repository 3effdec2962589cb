"""NVIDIA's functions on the PCI bus, from sysfs."""

from dataclasses import dataclass

from driverctr.files import read_text
from driverctr.paths import Paths

VENDOR_NVIDIA = 0x10DE
VENDOR_MELLANOX = 0x15B3
VFIO = "vfio-pci"
"""The driver that hands a GPU to a virtual machine: never touched, and not missed."""

CLASS_DISPLAY = 0x03
"""PCI base class of GPUs: 0x0300 VGA, 0x0302 3D controller (pci.ids)."""


@dataclass(frozen=True)
class Gpu:
    """One GPU: PCI address, device id, and the driver bound to it or ""."""

    address: str
    device_id: int
    driver: str


def read(paths: Paths) -> tuple[Gpu, ...]:
    """All GPUs, by address."""
    if not paths.pci_devices.is_dir():
        return ()
    found = []
    for folder in sorted(paths.pci_devices.iterdir()):
        vendor, kind = (read_text(folder / name) or "0x0" for name in ("vendor", "class"))
        if int(vendor, 16) == VENDOR_NVIDIA and int(kind, 16) >> 16 == CLASS_DISPLAY:
            driver = folder / "driver"
            bound = driver.readlink().name if driver.is_symlink() else ""
            found.append(Gpu(folder.name, int(read_text(folder / "device") or "0", 16), bound))
    return tuple(found)


def have_mellanox(paths: Paths) -> bool:
    """Whether a Mellanox NIC is there, which GPUDirect RDMA needs."""
    if not paths.pci_devices.is_dir():
        return False
    return any(
        int(read_text(folder / "vendor") or "0x0", 16) == VENDOR_MELLANOX for folder in paths.pci_devices.iterdir()
    )
