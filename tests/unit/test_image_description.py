"""What an image says of itself, read from descriptions old and new."""

import json
from pathlib import Path
from typing import Any

import pytest

from driverctr.errors import Code, DriverError
from driverctr.userspace import image
from driverctr.userspace.image import Image, Origin

OLD: dict[str, Any] = {
    "driver_version": "535.309.01",
    "sources": [{"type": "open", "version": "535.309.01", "path": "/opt/x/kernel-open", "sha256": "11" * 32}],
    "distribution": "debian",
    "architecture": "amd64",
}


def read(root: Path, document: dict[str, Any]) -> Image:
    place = root / image.DESCRIPTION
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(document))
    return image.read(root)


def test_a_description_of_before_is_of_packages_and_of_no_kernel(tmp_path: Path) -> None:
    found = read(tmp_path, OLD)
    assert (found.distribution_version, found.origin, found.kernel_release) == ("", Origin.PACKAGES, "")
    assert found.sources[0].path == tmp_path / "opt/x/kernel-open"
    assert found.platform == "debian-amd64"


def test_a_description_tells_release_origin_and_kernel(tmp_path: Path) -> None:
    new = {"distribution_version": "22.04", "origin": "runfile", "kernel_release": "5.15.0-105-generic"}
    found = read(tmp_path, {**OLD, **new})
    assert (found.distribution_version, found.origin) == ("22.04", Origin.RUNFILE)
    assert found.kernel_release == "5.15.0-105-generic"


def test_an_origin_we_do_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="'floppy' is not a valid Origin") as caught:
        read(tmp_path, {**OLD, "origin": "floppy"})
    assert caught.value.code is Code.NO_MODULES
