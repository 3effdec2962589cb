"""The driver from packages: which versions are taken, what is left out, where Ubuntu's files go."""

import gzip
import json
import os
from pathlib import Path

import debs
import driver_files
import nvidia_root
import pytest
import ubuntu_root
from driver_files import BuildError, Release

from driverctr.userspace import image
from driverctr.userspace.image import ModuleType, Origin
from tests.unit.conftest import FakeBin, make_tree

VERSION = "535.309.01"
FULL = f"{VERSION}-0ubuntu0.22.04.1"
LIBRARIES = f"usr/lib/{driver_files.triplet()}"
OPEN = "nvidia-kernel-source-535-server-open"
# Of the packages that matter here what is in them; every other one has nothing.
PACKED = {
    "libnvidia-compute-535-server": {
        f"{LIBRARIES}/libcuda.so.{VERSION}": "library",
        "etc/OpenCL/vendors/nvidia.icd": "libnvidia-opencl.so.1\n",
        "usr/share/doc/libnvidia-compute-535-server/copyright": "as NVIDIA says",
    },
    "nvidia-utils-535-server": {"usr/bin/nvidia-smi": "program", "usr/share/man/man1/nvidia-smi.1.gz": "manual"},
    f"nvidia-firmware-535-server-{VERSION}": {f"lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin": "firmware"},
    "nvidia-kernel-source-535-server": {
        f"usr/src/nvidia-srv-{VERSION}/Makefile": "modules:\n",
        f"usr/src/nvidia-srv-{VERSION}/dkms.conf": "PACKAGE_NAME=nvidia-srv\n",
        "usr/share/doc/nvidia-kernel-source-535-server/copyright": "as NVIDIA says",
    },
    OPEN: {
        f"usr/src/nvidia-srv-{VERSION}/Makefile": "open modules:\n",
        f"usr/share/doc/{OPEN}/copyright": "MIT",
    },
    "nvidia-modprobe": {"usr/bin/nvidia-modprobe": "program"},
}


@pytest.fixture
def offered(fake_bin: FakeBin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file for each package that the sources offer, whose lines are its versions; and a fake apt."""
    folder = tmp_path / "offered"
    folder.mkdir()
    trees = tmp_path / "trees"
    for name in (*ubuntu_root.names(ubuntu_root.PACKAGES, VERSION), "nvidia-modprobe"):
        (folder / name).write_text(FULL + "\n" if name != "nvidia-modprobe" else "570.86.15-0ubuntu1\n")
        for path, text in PACKED.get(name, {}).items():
            place = trees / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        (trees / name).mkdir(parents=True, exist_ok=True)
    (trees / "libnvidia-compute-535-server" / LIBRARIES / "libcuda.so.1").symlink_to(f"libcuda.so.{VERSION}")
    packed = trees / "nvidia-driver-535-server/usr/share/doc/nvidia-driver-535-server/supported-gpus.json.gz"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress(b'{"chips": []}'))
    monkeypatch.setenv("PATH", f"{fake_bin.folder}:{os.environ['PATH']}")
    fake_bin.add("apt-cache", f'sed "s/.*/ $2 | & | archive/" {folder}/$2 2>/dev/null; exit 0')
    fake_bin.add("apt-get", 'for word; do case $word in *=*-*) : > "${word%%=*}_1_all.deb" ;; esac; done')
    fake_bin.add("dpkg-deb", f'name=${{2##*/}}; cp -a "{trees}/${{name%%_*}}" "$3"')
    monkeypatch.setattr(driver_files, "read_release", lambda: Release("ubuntu", "22.04"))
    return folder


def test_ubuntus_packages_are_laid_out_and_described(offered: Path, tmp_path: Path) -> None:
    ubuntu_root.build(VERSION, tmp_path / "out")
    out = tmp_path / "out"
    described = image.read(out)
    assert (described.distribution, described.distribution_version) == ("ubuntu", "22.04")
    assert described.origin is Origin.PACKAGES
    assert [source.type for source in described.sources] == [ModuleType.PROPRIETARY, ModuleType.OPEN]
    assert {source.version.text for source in described.sources} == {VERSION}
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() and not path.is_symlink()}
    assert files == {
        f"{LIBRARIES}/libcuda.so.{VERSION}",
        "etc/OpenCL/vendors/nvidia.icd",
        "usr/bin/nvidia-smi",
        "usr/bin/nvidia-modprobe",
        f"usr/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin",
        "usr/share/nvidia/supported-gpus.json",
        "usr/share/doc/libnvidia-compute-535-server/copyright",
        "usr/share/doc/nvidia-kernel-source-535-server/copyright",
        f"usr/share/doc/{OPEN}/copyright",
        "usr/share/driverctr/image.json",
        "usr/share/driverctr/userspace.json",
        *(f"opt/driverctr/source/nvidia-{VERSION}/{name}" for name in ("LICENSE", "kernel/Makefile")),
        f"opt/driverctr/source/nvidia-{VERSION}/kernel-open/Makefile",
    }
    assert (out / f"usr/src/nvidia-{VERSION}/kernel").resolve() == out / f"opt/driverctr/source/nvidia-{VERSION}/kernel"
    assert json.loads((out / driver_files.SUPPORTED_GPUS).read_text()) == {"chips": []}


def test_only_what_is_optional_may_be_missing(
    offered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("libnvidia-fbc1-535-server", "nvidia-modprobe", "nvidia-kernel-source-535-server"):
        (offered / name).unlink()
    ubuntu_root.build(VERSION, tmp_path / "out")
    assert [source.type for source in image.read(tmp_path / "out").sources] == [ModuleType.OPEN]
    assert "left out: the package sources have no libnvidia-fbc1-535-server" in capsys.readouterr().out
    (offered / "nvidia-utils-535-server").unlink()
    with pytest.raises(BuildError, match=r"no nvidia-utils-535-server for driver 535\.309\.01, but: none at all"):
        ubuntu_root.build(VERSION, tmp_path / "again")


def test_without_any_module_source_there_is_no_image(offered: Path, tmp_path: Path) -> None:
    for name in ("nvidia-kernel-source-535-server", OPEN):
        (offered / name).unlink()
    with pytest.raises(
        BuildError, match=r"no module source of driver 535\.309\.01: neither of .*DRIVER_SOURCE=runfile"
    ):
        ubuntu_root.build(VERSION, tmp_path / "out")


def test_the_version_is_the_drivers_to_the_byte_or_of_its_branch_and_not_newer(offered: Path) -> None:
    (offered / "libcuda1").write_text("535.309.02-1\n535.309.01-1~deb12u1\n535.309.01-1\n535.261.03-1\n550.1-1\n")
    assert debs.newest("libcuda1", VERSION, exactly=True) == "535.309.01-1~deb12u1"
    (offered / "open").write_text("550.1-1\n1:535.261.03-2\n535.183.01-1\n")
    assert debs.newest("open", VERSION, exactly=False) == "1:535.261.03-2"
    with pytest.raises(BuildError, match=r"have no open for driver 535\.309\.01, but: 550\.1-1, 1:535\.261\.03-2"):
        debs.newest("open", VERSION, exactly=True)


def test_a_failed_apt_is_told_without_a_traceback(
    offered: Path, fake_bin: FakeBin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_bin.add("apt-get", "echo 'E: Unable to fetch some archives' >&2; exit 100")
    assert ubuntu_root.main([VERSION, str(tmp_path / "out")]) == 1
    assert "exit status 100. See its words above." in capsys.readouterr().err
    assert ubuntu_root.main([]) == 2


def test_links_that_lead_out_or_nowhere_are_refused(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    (base / "usr/lib").mkdir(parents=True)
    (base / "usr/lib/libgbm.so.1").touch()
    (out / "usr/lib").mkdir(parents=True)
    (out / "usr/lib/of-base").symlink_to("libgbm.so.1")
    driver_files.check_links(out, base)
    with pytest.raises(BuildError, match=r"of-base -> libgbm\.so\.1 is a link that breaks outside the driver root"):
        driver_files.check_links(out)
    (out / "usr/lib/out").symlink_to("../../../base/usr/lib/libgbm.so.1")
    (out / "usr/lib/of-base").unlink()
    with pytest.raises(BuildError, match="is a link that breaks"):
        driver_files.check_links(out, base)


@pytest.mark.parametrize("lib", ["lib", "usr/lib"])
def test_debians_firmware_is_found_above_usr_and_below(lib: str, tmp_path: Path) -> None:
    unpacked, root = tmp_path / "unpacked", tmp_path / "root"
    files = {
        f"firmware-nvidia-gsp/{lib}/firmware/nvidia/{VERSION}/gsp_ga10x.bin": "firmware",
        "nvidia-smi/usr/lib/nvidia/current/nvidia-smi": "program",
        **{f"{owner}/{name}": "{}" for owner, name in nvidia_root.LOADER_FILES},
    }
    make_tree(unpacked, files)
    packed = unpacked / "nvidia-driver/usr/share/doc/nvidia-driver/supported-gpus.json.gz"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress(b"{}"))
    nvidia_root.lay_out_userspace(unpacked, root, VERSION)
    assert (root / f"usr/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin").read_text() == "firmware"
    with pytest.raises(BuildError, match=r"no package has GSP firmware, lib/firmware/nvidia/550\.1/"):
        nvidia_root.lay_out_userspace(unpacked, root, "550.1")
    packed.unlink()
    (root / driver_files.SUPPORTED_GPUS).unlink()
    with pytest.raises(BuildError, match=rf"nvidia-driver {VERSION} has no list of supported GPUs"):
        nvidia_root.lay_out_userspace(unpacked, root, VERSION)


def test_the_maker_of_device_nodes_serves_any_branch(offered: Path) -> None:
    (offered / "nvidia-modprobe").write_text("570.133.07-1\n")
    assert debs.whatever_is_offered("nvidia-modprobe") == {"nvidia-modprobe": "570.133.07-1"}
    assert debs.whatever_is_offered("nvidia-nothing") == {}
