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

PLACE = len("3b:00.0")
"""An address ends in bus, device and function; before them is the domain."""

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
    """The folders of a vendor's functions, by address.

    A node has hundreds of functions: which may be his is read from one file first, where the kernel has it.
    """
    places = _places(paths, vendor)
    folder = paths.pci_devices
    found = [folder / name for name in names(folder) if places is None or name[-PLACE:] in places]
    return [function for function in found if read_number(function / "vendor") == vendor]


def _places(paths: Paths, vendor: int) -> set[str] | None:
    """Bus, device and function of each of his, in whatever domain; None where no list of them is there.

    A line is bus and devfn, then vendor and device, in hexadecimal (Linux, drivers/pci/proc.c show_device).
    """
    text = read_text(paths.proc / "bus/pci/devices")
    if not text:
        return None
    wanted = f"{vendor:04x}"
    places = ((line[:2], int(line[2:4], 16)) for line in text.splitlines() if line[5:9] == wanted)
    return {f"{bus}:{devfn >> 3:02x}.{devfn & 7}" for bus, devfn in places}


def have_mellanox(paths: Paths) -> bool:
    """Whether a Mellanox NIC is there, which GPUDirect RDMA needs."""
    return bool(functions(paths, VENDOR_MELLANOX))


def read_number(file: Path) -> int:
    """A number as sysfs writes it, in hexadecimal; 0 where it cannot be read."""
    return int(read_text(file) or "0", 16)
