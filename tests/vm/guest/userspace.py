"""Write the list of a root's userspace, as the image's build does: userspace.py ROOT VERSION."""

import hashlib
import json
import sys
from pathlib import Path

PATTERNS = (
    "usr/lib/*-linux-gnu/libnvidia*",
    "usr/lib/*-linux-gnu/libcuda*",
    "usr/lib/*-linux-gnu/libnvcuvid*",
    "usr/lib/*-linux-gnu/libEGL_nvidia*",
    "usr/lib/*-linux-gnu/libGL*_nvidia*",
    "usr/bin/nvidia-smi",
    "usr/bin/nvidia-persistenced",
    "usr/lib/firmware/nvidia/*/*",
)
LARGE = 4 << 20
"""Bytes beyond which a file's content is not hashed, which takes long where the processor is emulated: such files are
of the version that is never kept here, and what is listed of them is that they are its own."""


def describe(root: Path, path: Path) -> dict[str, str | int]:
    """One file or link."""
    name, status = path.relative_to(root).as_posix(), path.lstat()
    if path.is_symlink():
        return {"path": name, "link": str(path.readlink()), "sha256": "", "size": 0, "mode": 0o777}
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if status.st_size < LARGE else "0" * 64
    return {"path": name, "link": "", "sha256": digest, "size": status.st_size, "mode": status.st_mode & 0o7777}


def main(root: Path, version: str) -> None:
    """Write it where the program reads it."""
    items = [describe(root, path) for pattern in PATTERNS for path in sorted(root.glob(pattern))]
    record = {"schema": 1, "driver_version": version, "platform": "debian-amd64", "items": items}
    (root / "usr/share/driverctr/userspace.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
