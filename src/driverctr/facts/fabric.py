"""NVLink fabrics, which need a fabric manager: NVSwitches on the PCI bus, or NVLink 5 behind InfiniBand functions."""

from pathlib import Path

from driverctr.facts import gpus
from driverctr.facts.gpus import VENDOR_NVIDIA
from driverctr.files import entries
from driverctr.paths import Paths
from driverctr.records import frozen

CLASS_BRIDGE_OTHER = 0x0680
"""PCI class of an NVSwitch, and of some of NVIDIA's old chip sets too (pci.ids): the device id decides."""

NVSWITCH_IDS = frozenset((0x1AC2, *range(0x1AE8, 0x1AF8), *range(0x22A0, 0x22A8)))
"""Of the three generations: V100's (pci.ids 1ac2), A100's (1af1 and its relatives), H100's (NVIDIA's open module
source, src/common/nvswitch)."""

NVLINK5_MARK = b"SW_MNG"
"""In the vital product data of a function that manages an NVLink 5 switch (reference C, NVIDIA's container)."""


@frozen
class Fabric:
    """NVSwitches by PCI address, and InfiniBand devices that manage NVLink 5."""

    switches: tuple[str, ...]
    nvlink5: tuple[str, ...]


def read(paths: Paths) -> Fabric:
    """Look at the buses."""
    return Fabric(
        switches=tuple(folder.name for folder in gpus.functions(paths, VENDOR_NVIDIA) if _is_switch(folder)),
        nvlink5=tuple(
            folder.name for folder in entries(paths.root / "sys/class/infiniband") if _manages_nvlink5(folder)
        ),
    )


def _is_switch(folder: Path) -> bool:
    return (
        gpus.read_number(folder / "class") >> 8 == CLASS_BRIDGE_OTHER
        and gpus.read_number(folder / "device") in NVSWITCH_IDS
    )


def _manages_nvlink5(folder: Path) -> bool:
    try:
        return NVLINK5_MARK in (folder / "device/vpd").read_bytes()
    except OSError:
        return False
