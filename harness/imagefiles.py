"""An image as files: its root file system unpacked, and what `docker save` makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import cache, dockerd
from harness.errors import HarnessError

# Two of each flavour, and one more.
ROOTS_KEPT = 7
SAVED_KEPT = 2
ROOT_MIN_AGE_S = 3600


def export_rootfs(tag: str) -> Path:
    """Return the folder with the image's root file system, as a container would see it. Needs root.

    Owners, modes, extended attributes and device nodes are kept. Nothing may write below it: it is shared.
    """
    if os.geteuid() != 0:
        raise HarnessError("only root can unpack an image with its owners and devices", "Run this as root")
    made = cache.entry("rootfs", [identity(tag)], lambda to: _unpack(tag, to / "root"))
    _prune(made)
    return made / "root"


def identity(tag: str) -> str:
    """Return the digest of the image's configuration, which names the content of each of its layers."""
    return str(dockerd.client().images.get(tag).id)


def saved(tag: str) -> Path:
    """Return the file that `docker save` makes of the image."""
    made = cache.entry("saved-image", [tag, identity(tag)], lambda to: _save(tag, to / "image.tar"))
    cache.prune(made.parent, SAVED_KEPT)
    return made / "image.tar"


def _save(tag: str, to: Path) -> None:
    with to.open("wb") as archive:
        for chunk in dockerd.client().images.get(tag).save(named=True):
            archive.write(chunk)


def _unpack(tag: str, root: Path) -> None:
    root.mkdir()
    container = dockerd.client().containers.create(tag)
    try:
        exported: Any = container.export()  # bytes; its type stub says str
        _extract(exported, root, "--numeric-owner", "--xattrs", "--xattrs-include=*")
    finally:
        container.remove()


def _extract(chunks: Iterable[bytes], to: Path, *options: str) -> None:
    with subprocess.Popen(["tar", "--extract", *options, "--directory", to], stdin=subprocess.PIPE) as tar:
        assert tar.stdin is not None
        for chunk in chunks:
            tar.stdin.write(chunk)
    if tar.returncode != 0:
        raise HarnessError(f"tar could not unpack into {to}: exit {tar.returncode}")


def _prune(in_use: Path) -> None:
    """Remove roots of old builds: each takes 700 MB, and each change of the sources makes another."""
    roots = sorted(in_use.parent.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in roots[ROOTS_KEPT:]:
        if path != in_use and time.time() - path.stat().st_mtime > ROOT_MIN_AGE_S:
            shutil.rmtree(path, ignore_errors=True)
