"""NVIDIA's functions on the PCI bus, from sysfs."""

from driverctr.files import entries, link_target, read_text
from driverctr.paths import Paths
from driverctr.records import frozen

VENDOR_NVIDIA = 0x10DE
VENDOR_MELLANOX = 0x15B3
NOUVEAU = "nouveau"
"""The kernel's own driver: unlike one that hands GPUs to virtual machines, nobody gives it a GPU on purpose."""

CLASS_DISPLAY = 0x03
"""PCI base class of GPUs: 0x0300 VGA, 0x0302 3D controller (pci.ids)."""

OUR_DRIVER = "nvidia"
"""The name under which NVIDIA's core module drives PCI functions."""


@frozen
class Gpu:
    """One GPU: PCI address, device id, the driver bound to it or "", and ids of its subsystem (vendor, device).

    `reserved` is the driver that sysfs was told to bind in place of all others, or "" (driver_override).
    """

    address: str
    device_id: int
    driver: str
    subsystem: tuple[int, int] = (0, 0)
    reserved: str = ""

    @property
    def taken_by(self) -> str:
        """The other driver that keeps it from ours, or ""."""
        claimed = self.driver or self.reserved
        return "" if claimed == OUR_DRIVER else claimed

    def __str__(self) -> str:
        """For a sentence."""
        return f"{self.address} ({VENDOR_NVIDIA:04x}:{self.device_id:04x})"


def read(paths: Paths) -> tuple[Gpu, ...]:
    """All GPUs, by address."""
    found = []
    for folder in entries(paths.pci_devices):
        vendor, kind = (read_text(folder / name) or "0x0" for name in ("vendor", "class"))
        if int(vendor, 16) == VENDOR_NVIDIA and int(kind, 16) >> 16 == CLASS_DISPLAY:
            device, *subsystem = (
                int(read_text(folder / name) or "0", 16) for name in ("device", "subsystem_vendor", "subsystem_device")
            )
            reserved = read_text(folder / "driver_override") or ""
            none = ("", "(null)")  # how sysfs writes that nothing is set (drivers/pci/pci-sysfs.c)
            found.append(
                Gpu(
                    folder.name,
                    device,
                    link_target(folder / "driver"),
                    (subsystem[0], subsystem[1]),
                    "" if reserved in none else reserved,
                )
            )
    return tuple(found)


def have_mellanox(paths: Paths) -> bool:
    """Whether a Mellanox NIC is there, which GPUDirect RDMA needs."""
    return any(
        int(read_text(folder / "vendor") or "0x0", 16) == VENDOR_MELLANOX for folder in entries(paths.pci_devices)
    )
