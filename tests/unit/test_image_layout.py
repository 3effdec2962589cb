"""Firmware and the list of GPUs are found wherever a distribution's packages have them, and their lack is told."""

import gzip
from pathlib import Path

import driver_files
import layout
import pytest
from driver_files import BuildError

from tests.unit.conftest import make_tree

VERSION = "535.309.01"


@pytest.mark.parametrize("lib", ["lib", "usr/lib"])
def test_firmware_of_this_version_is_placed_below_usr(lib: str, tmp_path: Path) -> None:
    make_tree(
        tmp_path / "one", {f"{lib}/firmware/nvidia/{name}/gsp_ga10x.bin": name for name in (VERSION, "535.183.01")}
    )
    layout.place_firmware([tmp_path / "none", tmp_path / "one"], tmp_path / "root", VERSION)
    found = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert found == [tmp_path / "root/usr/lib/firmware/nvidia" / VERSION / "gsp_ga10x.bin"]


def test_packages_without_this_versions_firmware_make_no_image(tmp_path: Path) -> None:
    make_tree(tmp_path / "one", {"lib/firmware/nvidia/535.183.01/gsp_ga10x.bin": "old"})
    with pytest.raises(BuildError, match=rf"no package has GSP firmware, lib/firmware/nvidia/{VERSION}/"):
        layout.place_firmware([tmp_path / "one"], tmp_path / "root", VERSION)


@pytest.mark.parametrize("packed", [False, True])
def test_the_list_of_gpus_is_placed_unpacked(packed: bool, tmp_path: Path) -> None:
    folder = tmp_path / "one/usr/share/doc/nvidia-driver"
    folder.mkdir(parents=True)
    assert not layout.place_supported_gpus([tmp_path / "one"], tmp_path / "root")
    content = b'{"chips": []}'
    file = folder / ("supported-gpus.json.gz" if packed else "supported-gpus.json")
    file.write_bytes(gzip.compress(content) if packed else content)
    assert layout.place_supported_gpus([tmp_path / "one"], tmp_path / "root")
    assert (tmp_path / "root" / driver_files.SUPPORTED_GPUS).read_bytes() == content
