"""NVIDIA's functions on the PCI bus, from sysfs."""

from pathlib import Path

from driverctr.files import link_target, names, read_text
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
    return tuple(
        _read_one(folder)
        for folder in functions(paths, VENDOR_NVIDIA)
        if read_number(folder / "class") >> 16 == CLASS_DISPLAY
    )


def _read_one(folder: Path) -> Gpu:
    device, *subsystem = (read_number(folder / name) for name in ("device", "subsystem_vendor", "subsystem_device"))
    reserved = read_text(folder / "driver_override") or ""
    none = ("", "(null)")  # how sysfs writes that nothing is set (drivers/pci/pci-sysfs.c)
    return Gpu(
        folder.name,
        device,
        link_target(folder / "driver"),
        (subsystem[0], subsystem[1]),
        "" if reserved in none else reserved,
    )


def functions(paths: Paths, vendor: int) -> list[Path]:
    """The folders of a vendor's functions, by address."""
    folder = paths.pci_devices
    place = str(folder)  # a node has hundreds of functions: a path made of each costs more than to read it
    return [folder / name for name in names(folder) if read_number(f"{place}/{name}/vendor") == vendor]


def have_mellanox(paths: Paths) -> bool:
    """Whether a Mellanox NIC is there, which GPUDirect RDMA needs."""
    return bool(functions(paths, VENDOR_MELLANOX))


def read_number(file: Path | str) -> int:
    """A number as sysfs writes it, in hexadecimal; 0 where it cannot be read."""
    return int(read_text(file) or "0", 16)
