"""Our patches to NVIDIA's module sources: which source and which kernels need each, and why."""

from pathlib import Path

from driverctr.records import frozen
from driverctr.versions import DriverVersion

KernelVersion = tuple[int, int, int]
"""Version, patch level and sublevel, as linux/version.h has them (a sublevel above 255 stands there as 255)."""


@frozen
class Patch:
    """One file of this folder; both ends of a range belong to it, None leaves the end open."""

    file: str
    why: str
    module_type: str
    drivers: tuple[str, str]
    kernels: tuple[KernelVersion, KernelVersion | None]

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(__file__).parent / self.file

    def concerns(self, module_type: str, driver: DriverVersion | str) -> bool:
        """Whether this source needs the patch for some kernel."""
        first, last = (DriverVersion(text) for text in self.drivers)
        return module_type == self.module_type and first <= DriverVersion(str(driver)) <= last

    def fits(self, module_type: str, driver: DriverVersion, kernel: KernelVersion) -> bool:
        """Whether this source needs the patch for this kernel."""
        since, until = self.kernels
        return self.concerns(module_type, driver) and since <= kernel and (until is None or kernel <= until)


PATCHES = (
    Patch(
        file="open-535-pci-resize-resource.patch",
        why="pci_resize_resource() takes a fourth argument since 6.1.192, and since other stable releases of its time",
        module_type="open",
        drivers=("535.261.03", "535.261.03"),
        kernels=((5, 10, 0), None),
    ),
)


def fitting(
    module_type: str,
    driver: DriverVersion,
    kernel: KernelVersion,
    table: tuple[Patch, ...] = PATCHES,
) -> tuple[Patch, ...]:
    """The patches a source needs, in the order in which they are applied."""
    return tuple(patch for patch in table if patch.fits(module_type, driver, kernel))
