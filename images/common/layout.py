"""What packages of the driver have in places of each distribution's own: GSP firmware, the list of supported GPUs."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

from driver_files import SUPPORTED_GPUS, BuildError, copy


def place_firmware(packages: Iterable[Path], root: Path, version: str) -> None:
    """Place the firmware of unpacked packages, in lib or usr/lib there; raises BuildError where none has any.

    A folder lib of the tree would stand in the way of the image's link to usr/lib.
    """
    target = root / "usr/lib/firmware/nvidia" / version
    for package in packages:
        for blob in sorted(package.glob(f"**/lib/firmware/nvidia/{version}/*.bin")):
            copy(blob, target / blob.name)
    if not target.is_dir():
        raise BuildError(
            f"no package has GSP firmware, lib/firmware/nvidia/{version}/*.bin",
            "Report it: the packages are not as known; the run-file serves (DRIVER_SOURCE=runfile)",
        )


def place_supported_gpus(packages: Iterable[Path], root: Path) -> bool:
    """Place the list of supported GPUs, packed or not; returns whether a package has it.

    It is documentation to the package, and to us what decides before a module is loaded.
    """
    target = root / SUPPORTED_GPUS
    for package in packages:
        for listed in sorted(package.glob(f"usr/share/**/{target.name}*")):
            content = listed.read_bytes()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(gzip.decompress(content) if listed.suffix == ".gz" else content)
    return target.is_file()
