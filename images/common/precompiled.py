#!/usr/bin/python3
"""Make the tree of a driver root that of a precompiled image: without module source, and described as for one kernel.

Usage: precompiled.py KERNEL_RELEASE ROOT

ROOT is what a script for the driver's origin has laid out, with the modules in the folder where they are looked for.
The digests of the sources stay in the description: by them the image still finds modules in a store or remote folder.
An empty KERNEL_RELEASE makes an image that refuses every node.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import driver_files
from driver_files import BuildError

MODULES = Path("opt/driverctr/modules")
# What the classic builder makes on its way to another stage is no node's.
UNNAMED = "(none: built without KERNEL_VERSION)"


def main(argv: Sequence[str]) -> int:
    """Change the tree; the exit status is 0, 1 with the error, or 2 on wrong usage."""
    return driver_files.run(argv, __doc__, precompile)


def precompile(release: str, root: Path) -> None:
    """Describe the tree as for one kernel, once its modules are seen there, and leave the sources out."""
    there = [json.loads(manifest.read_text()) for manifest in (root / MODULES).glob("*/*/manifest.json")]
    kernels = [manifest["kernel_release"] for manifest in there]
    if kernels != ([release] if release else []):
        raise BuildError(
            f"{root / MODULES} has modules for {', '.join(sorted(kernels)) or 'no kernel'}, not for {release} alone",
            "Have `nvidia-driver build --kernel` put them there",
        )
    described = root / driver_files.DESCRIPTION
    record = json.loads(described.read_text())
    record["kernel_release"] = release or UNNAMED
    if there:
        record["module_type"] = there[0]["module_type"]
    described.write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(root / driver_files.SOURCES, ignore_errors=True)
    for shown in (root / "usr/src").glob("nvidia-*"):
        shown.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
