"""What lies in the image: NVIDIA's files where neighbours look for them, module sources, firmware, our program."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from driverctr import patches
from driverctr.facts import supported
from driverctr.facts.gpus import Gpu
from driverctr.hashing import sha256
from driverctr.userspace import listing
from driverctr.userspace.listing import Item
from harness import image, share

pytestmark = pytest.mark.image

LIBRARIES = "usr/lib/x86_64-linux-gnu"
SOURCES = "opt/driverctr/source"
PROGRAMS = ("nvidia-smi", "nvidia-persistenced", "nvidia-modprobe", "nvidia-cuda-mps-control")
# What the operator's validator and container toolkit, and CUDA programs, look for by these names.
SONAMES = (
    "libcuda.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-cfg.so.1",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-nvvm.so.4",
    "libnvidia-opencl.so.1",
    "libnvcuvid.so.1",
    "libnvidia-encode.so.1",
    "libEGL_nvidia.so.0",
    "libGLESv1_CM_nvidia.so.1",
    "libGLESv2_nvidia.so.2",
    "libGLX_nvidia.so.0",
    "libnvidia-fbc.so.1",
    "libnvidia-ngx.so.1",
)
# Loaded by those above under the driver's version: OpenGL, EGL, shaders, ray tracing.
CORES = ("libnvidia-eglcore", "libnvidia-glcore", "libnvidia-glsi", "libnvidia-glvkspirv", "libnvidia-rtcore")


@pytest.fixture(scope="module")
def record(rootfs: Path) -> dict[str, Any]:
    """Return the image's description of itself."""
    described: dict[str, Any] = json.loads((rootfs / "usr/share/driverctr/image.json").read_text())
    return described


def nvidia_files(rootfs: Path) -> list[Path]:
    """Return everything that came from NVIDIA's packages, wherever it lies."""
    found = [p for folder in ("usr/bin", "usr/sbin") for p in (rootfs / folder).glob("nvidia-*")]
    for pattern in ("libnvidia*", "libcuda*", "libnvcuvid*", "libEGL_nvidia*", "libGL*_nvidia*"):
        found += (rootfs / LIBRARIES).glob(pattern)
    for folder in ("usr/lib/firmware/nvidia", "usr/src", SOURCES):
        found += (rootfs / folder).rglob("*")
    return found


def test_no_link_of_nvidias_is_absolute_or_dangling(rootfs: Path) -> None:
    links = [path for path in nvidia_files(rootfs) if path.is_symlink()]
    assert links, "the libraries have links by soname"
    wrong = [f"{p} -> {os.readlink(p)}" for p in links if os.path.isabs(os.readlink(p)) or not p.exists()]
    assert wrong == []


def test_no_debian_alternatives_for_nvidia(rootfs: Path) -> None:
    links = [p for p in (rootfs / "etc/alternatives").iterdir() if p.is_symlink()]
    alternatives = [p.name for p in links if "nvidia" in p.name + os.readlink(p)]
    assert alternatives == []
    assert not (rootfs / LIBRARIES / "nvidia").exists()


def test_the_userspace_is_listed_as_it_lies_there(rootfs: Path, record: dict[str, Any]) -> None:
    listed = listing.read(rootfs)
    assert (listed.driver_version, listed.platform) == (record["driver_version"], f"debian-{record['architecture']}")
    wrong = [item.path for item in listed.items if not is_as_listed(rootfs / item.path, item)]
    assert wrong == []
    ours = {"usr/bin/nvidia-driver"}
    files = [path for path in nvidia_files(rootfs) if path.is_symlink() or path.is_file()]
    names = {str(path.relative_to(rootfs)) for path in files}
    userspace = {name for name in names if not name.startswith(("usr/src/", f"{SOURCES}/"))}
    assert userspace - ours <= {item.path for item in listed.items}


def is_as_listed(path: Path, item: Item) -> bool:
    """Return whether a file has the content and mode listed, a link its target."""
    if item.link:
        return path.is_symlink() and os.readlink(path) == item.link
    mode = stat.S_IMODE(path.lstat().st_mode)
    return (sha256(path), path.stat().st_size, mode) == (item.sha256, item.size, item.mode)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_regular_executables(rootfs: Path, name: str) -> None:
    mode = (rootfs / "usr/bin" / name).lstat().st_mode
    assert stat.S_ISREG(mode)
    assert mode & 0o111 == 0o111


@pytest.mark.parametrize("name", SONAMES)
def test_libraries_resolve_to_the_drivers_version(rootfs: Path, record: dict[str, Any], name: str) -> None:
    resolved = (rootfs / LIBRARIES / name).resolve()
    assert resolved.is_relative_to(rootfs)
    assert resolved.name == f"{name.partition('.so')[0]}.so.{record['driver_version']}"


@pytest.mark.parametrize("name", CORES)
def test_graphics_find_their_cores(rootfs: Path, record: dict[str, Any], name: str) -> None:
    assert (rootfs / LIBRARIES / f"{name}.so.{record['driver_version']}").is_file()


@pytest.mark.parametrize(
    ("file", "library"),
    [
        ("glvnd/egl_vendor.d/10_nvidia.json", "libEGL_nvidia.so.0"),
        ("vulkan/icd.d/nvidia_icd.json", "libGLX_nvidia.so.0"),
        ("vulkan/implicit_layer.d/nvidia_layers.json", "libGLX_nvidia.so.0"),
    ],
)
def test_loaders_of_graphics_are_led_to_the_driver(rootfs: Path, file: str, library: str) -> None:
    """As NVIDIA's container toolkit looks for them in the driver root, to mount them into pods."""
    told = json.loads((rootfs / "usr/share" / file).read_text())
    assert (told.get("ICD") or told["layer"])["library_path"] == library
    assert (rootfs / LIBRARIES / library).is_file()


def test_nvidia_smi_runs_from_outside_the_root(rootfs: Path) -> None:
    """As the operator's validator does it: the file itself, not chrooted, with the root's libnvidia-ml preloaded."""
    library = (rootfs / LIBRARIES / "libnvidia-ml.so.1").resolve()
    ran = subprocess.run(
        [rootfs / "usr/bin/nvidia-smi"], env={"LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=60
    )
    # 9 is nvidia-smi's own code for "driver not loaded"; a loader error is 127.
    assert ran.returncode == 9, ran.stdout + ran.stderr
    assert "couldn't communicate with the NVIDIA driver" in ran.stdout
    assert ran.stderr == ""


def test_libcuda_loads_from_outside_the_root(rootfs: Path) -> None:
    library = rootfs / LIBRARIES / "libcuda.so.1"
    ran = subprocess.run(
        ["/usr/bin/python3", "-Ic", f"import ctypes; ctypes.CDLL({str(library)!r}).cuInit"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_loader_cache_lists_the_driver(rootfs: Path) -> None:
    listed = subprocess.run(["chroot", rootfs, "/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    for name in SONAMES:
        assert f"{name} (libc6,x86-64) => /lib/x86_64-linux-gnu/{name}" in listed.stdout


def test_firmware_of_the_drivers_version(rootfs: Path, record: dict[str, Any]) -> None:
    folder = rootfs / "lib/firmware/nvidia" / record["driver_version"]
    assert {p.name for p in folder.iterdir()} == {"gsp_tu10x.bin", "gsp_ga10x.bin"}
    assert all(p.stat().st_size > 10_000_000 for p in folder.iterdir())


def test_nvidias_list_of_gpus_is_there_and_understood(rootfs: Path) -> None:
    found = supported.read(rootfs)
    assert found is not None
    a100, k80, b200 = (found.look_up(Gpu("0000:01:00.0", device, "")) for device in (0x20B0, 0x102D, 0x2901))
    assert a100.drives("proprietary") and a100.drives("open")
    assert k80.legacy == "470.xx" and b200.too_new


def test_description(record: dict[str, Any]) -> None:
    assert record["driver_version"] == image.DEFAULT_DRIVER
    assert (record["distribution"], record["architecture"]) == ("debian", "amd64")
    assert [source["type"] for source in record["sources"]] == ["proprietary", "open"]


@pytest.mark.parametrize(("module_type", "folder"), [("proprietary", "kernel"), ("open", "kernel-open")])
def test_module_sources(rootfs: Path, record: dict[str, Any], module_type: str, folder: str) -> None:
    (source,) = [s for s in record["sources"] if s["type"] == module_type]
    tree = rootfs / source["path"].lstrip("/")
    assert source["path"] == f"/{SOURCES}/nvidia-{source['version']}/{folder}"
    shown = rootfs / f"usr/src/nvidia-{source['version']}/{folder}"
    assert shown.is_dir() and shown.resolve() == tree
    assert (tree.parent / "LICENSE").stat().st_size > 0
    for name in ("Kbuild", "Makefile", "conftest.sh", "nvidia/nv-kernel.o_binary", "nvidia-peermem/nv-p2p.h"):
        assert (tree / name).is_file(), name
    assert digest(tree) == source["sha256"]


def test_our_patches_fit_the_open_source(rootfs: Path, record: dict[str, Any]) -> None:
    (source,) = [s for s in record["sources"] if s["type"] == "open"]
    concerned = [patch for patch in patches.PATCHES if patch.concerns("open", source["version"])]
    assert concerned
    for patch in concerned:
        words = ["patch", "--batch", "--dry-run", "--strip=1", "--fuzz=0", f"--input={patch.path}"]
        tried = subprocess.run(words, cwd=rootfs / source["path"].lstrip("/"), capture_output=True, text=True)
        assert (tried.returncode, tried.stderr) == (0, ""), tried.stdout


def digest(tree: Path) -> str:
    """Return the digest as the description defines it: name, size and content of each file, by name."""
    total = hashlib.sha256()
    names = sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file())
    for name in names:
        content = (tree / name).read_bytes()
        total.update(name.encode() + b"\0" + str(len(content)).encode() + b"\0" + content)
    return total.hexdigest()


def test_licences_of_nvidias_packages_are_kept(rootfs: Path) -> None:
    for package in (
        "libcuda1",
        "nvidia-smi",
        "firmware-nvidia-gsp",
        "nvidia-persistenced",
        "nvidia-open-kernel-source",
    ):
        assert (rootfs / "usr/share/doc" / package / "copyright").stat().st_size > 0


def test_https_of_package_sources_can_be_trusted(rootfs: Path) -> None:
    assert (rootfs / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 50
    assert (rootfs / "usr/sbin/update-ca-certificates").is_file()


def test_persistenced_has_what_it_needs(rootfs: Path) -> None:
    assert (rootfs / "etc/netconfig").is_file()
    linked = subprocess.run(
        ["chroot", rootfs, "/usr/bin/nvidia-persistenced", "--version"], capture_output=True, text=True
    )
    assert linked.returncode == 0, linked.stderr


def test_our_modules_are_compiled_and_never_checked(rootfs: Path) -> None:
    lib = rootfs / "opt/driverctr/lib"
    sources = list(lib.rglob("*.py"))
    assert lib / "driverctr/cli.py" in sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
        # Flags of PEP 552: 0b01 is hash-based, without 0b10 the source is not looked at.
        assert compiled.read_bytes()[4:8] == b"\x01\x00\x00\x00", compiled


def test_nothing_of_the_build_is_left(rootfs: Path) -> None:
    assert list((rootfs / "var/lib/apt/lists").iterdir()) == []
    assert list((rootfs / "tmp").iterdir()) == []
    for folder in ("usr/share/man", "usr/share/locale", "usr/share/lintian"):
        left = [p for p in (rootfs / folder).rglob("*") if p.is_file()]
        assert [p for p in left if p.stem not in ("nvidia-driver", "driverctr")] == []


def test_manuals_and_completions_lie_where_they_are_looked_for(rootfs: Path) -> None:
    for place in (*share.FILES.values(), *share.LINKS):
        assert (rootfs / "usr/share" / place).read_text()
    assert (rootfs / "usr/share/man/man8/driverctr.8").read_text().startswith(".TH NVIDIA")
