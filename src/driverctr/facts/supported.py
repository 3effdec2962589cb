"""Which GPUs this driver release drives, and with which modules, by NVIDIA's own list (supported-gpus.json)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from driverctr.facts.gpus import VENDOR_NVIDIA, Gpu
from driverctr.paths import Paths
from driverctr.records import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIST = Path("usr/share/nvidia/supported-gpus.json")
"""Below the image's root; put there when the image was built."""

KERNEL_OPEN = "kernelopen"
"""A chip's feature: the open modules drive it."""

GSP_PROPRIETARY = "gsp_proprietary_supported"
"""A chip's feature in lists from branch 560 on: open modules drive it, and the proprietary ones too."""

IDS_OF_A_CHIP = 0x80
"""NVIDIA numbers chips upwards, each with a block of device ids (pci.ids: GA100 20b0..., AD107 2880..., GB100 2900...).

The list is not complete within them: it lacks the T4 (1eb8), which the driver's README names and the driver drives.
"""


@frozen
class Support:
    """What the list says of one GPU.

    `legacy` is the branch that drives it in place of ours; `too_new` is said only where it is sure; `types` are the
    module types that drive it, None where the list does not tell.
    """

    name: str = ""
    legacy: str = ""
    too_new: bool = False
    types: frozenset[str] | None = None

    def drives(self, module_type: str) -> bool:
        """Whether nothing is known against driving it with these modules."""
        return not self.legacy and not self.too_new and (self.types is None or module_type in self.types)


@frozen
class SupportList:
    """NVIDIA's list, by device id."""

    chips: Mapping[int, Collection[Mapping[str, Any]]]

    @cached_property
    def last_known(self) -> int:
        """The last device id of the newest chip in the list."""
        return max(self.chips) // IDS_OF_A_CHIP * IDS_OF_A_CHIP + IDS_OF_A_CHIP - 1

    @cached_property
    def tells_proprietary(self) -> bool:
        """Whether the list says which of the chips for open modules the proprietary ones drive too."""
        return any(GSP_PROPRIETARY in chip["features"] for entries in self.chips.values() for chip in entries)

    def look_up(self, gpu: Gpu) -> Support:
        """What the list says of a GPU; of entries for one device id the one for its very subsystem counts first."""
        entries = self.chips.get(gpu.device_id, ())
        if not entries:
            return Support(too_new=gpu.device_id > self.last_known)
        chip = max(entries, key=lambda entry: _closeness(entry, gpu))
        types = set()
        if KERNEL_OPEN in chip["features"]:
            types.add("open")
        if KERNEL_OPEN not in chip["features"] or GSP_PROPRIETARY in chip["features"] or not self.tells_proprietary:
            types.add("proprietary")
        return Support(chip["name"], chip.get("legacybranch", ""), types=frozenset(types))


def read(root: Path = Path("/")) -> SupportList | None:
    """The image's list, or None where it has none that we understand."""
    chips: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    try:
        for chip in json.loads((root / LIST).read_bytes())["chips"]:
            if isinstance(chip["name"], str) and isinstance(chip["features"], list):
                chips[int(chip["devid"], 16)].append(chip)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return SupportList(chips) if chips else None


def of_gpus(paths: Paths, seen: tuple[Gpu, ...]) -> Mapping[str, Support] | None:
    """What NVIDIA's list says of the GPUs that are ours to take; None where the image has no list."""
    found = read(paths.root) if seen else None
    return {gpu.address: found.look_up(gpu) for gpu in seen if not gpu.taken_by} if found else None


def _closeness(entry: Mapping[str, Any], gpu: Gpu) -> int:
    """2 for an entry of this subsystem, 1 for one of all, 0 for another's."""
    if "subdevid" not in entry:
        return 1
    named = (int(entry.get("subvendorid", hex(VENDOR_NVIDIA)), 16), int(entry["subdevid"], 16))
    return 2 if named == gpu.subsystem else 0
