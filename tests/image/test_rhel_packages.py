"""The driver and precompiled modules from rpm packages with NVIDIA's names, by real dnf and rpm, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import bases, containers, flavours, image, nvidiarpms
from harness.errors import HarnessError

pytestmark = pytest.mark.image

LIMIT_S = 300
IMAGES = Path(__file__).resolve().parents[2] / "images"
VERSION = image.DEFAULT_DRIVER
SET_UP = """\
mkdir /tmp/driver; cp /common/* /rhel/* /tmp/driver; mkdir -p /etc/yum.repos.d
for name in $NAMES; do
    printf '[%s]\\nname=%s\\nbaseurl=file:///repositories/%s\\ngpgkey=file:///repositories/RPM-GPG-KEY\\n' \\
        "$name" "$name" "$name" >/etc/yum.repos.d/$name.repo
done
mkdir -p /usr/libexec/driverctr; ln -sf /usr/bin/python3 /usr/libexec/driverctr/python3
"""
LAY_OUT = """\
sh /tmp/driver/packages-root.sh /out >&2
cat /out/usr/share/driverctr/image.json | tr -d '\\n'; echo
cd /out; find . ! -type d ! -path './opt/*' | sort
test -e opt/driverctr/source/nvidia-$DRIVER_VERSION/kernel/nvidia/nv.c
"""
TAKE = "sh /tmp/driver/kmod-modules.sh /modules >&2; cd /modules; grep -ac 'signature appended' *"


def run(names: str, script: str, **environment: str) -> list[str]:
    """Run a script as a stage of Dockerfile.rhel would, with these repositories; raises HarnessError with its words."""
    made = nvidiarpms.repositories(VERSION)
    folders = {made.folder: "/repositories", IMAGES / "common": "/common", IMAGES / "rhel": "/rhel"}
    volumes = {str(path): {"bind": place, "mode": "ro"} for path, place in folders.items()}
    variables = {
        "NAMES": names,
        "DRIVER_VERSION": VERSION,
        "KERNEL_VERSION": nvidiarpms.KERNEL,
        "KERNEL_MODULE_TYPE": "auto",
        "MODULES_SOURCE": "kmod",
        **environment,
    }
    base = bases.of(flavours.RHEL, VERSION).image
    argv = ["sh", "-ec", SET_UP + script]
    return containers.output(base, argv, LIMIT_S, volumes=volumes, environment=variables).splitlines()


def test_the_driver_is_laid_out_from_signed_packages() -> None:
    described, *files = run("good modprobe", LAY_OUT)
    record = json.loads(described)
    assert (record["driver_version"], record["origin"], record["distribution"]) == (VERSION, "packages", "rhel")
    assert [source["type"] for source in record["sources"]] == ["proprietary"]
    assert {
        f"./usr/lib64/libcuda.so.{VERSION}",
        "./usr/lib64/libnvidia-ml.so.1",
        "./usr/bin/nvidia-smi",
        "./usr/bin/nvidia-persistenced",
        "./usr/bin/nvidia-modprobe",
        f"./usr/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin",
        "./usr/share/nvidia/supported-gpus.json",
        "./usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "./usr/share/licenses/nvidia-driver/LICENSE",
        f"./usr/src/nvidia-{VERSION}",
    } <= set(files)


@pytest.mark.parametrize(
    ("repositories", "version", "words"),
    [
        ("good unsigned", VERSION, f"nvidia-modprobe-{VERSION}-1.el9.x86_64.rpm is refused: it is not signed"),
        ("good other-key", VERSION, f"nvidia-modprobe-{VERSION}-1.el9.x86_64.rpm is refused: it is signed with anoth"),
        ("good", "535.1.2", f"no nvidia-driver of driver 535.1.2, but: {VERSION}"),
    ],
)
def test_each_fault_ends_the_build_with_one_error(repositories: str, version: str, words: str) -> None:
    with pytest.raises(HarnessError, match="(?s)" + words):
        run(repositories, LAY_OUT, DRIVER_VERSION=version)


def test_modules_of_a_kmod_package_are_linked_and_signed_by_it() -> None:
    wanted = ["nvidia-modeset.ko:1", "nvidia-peermem.ko:1", "nvidia-uvm.ko:1", "nvidia.ko:1"]
    assert sorted(run("good", TAKE)) == wanted


def test_a_kernel_without_a_kmod_package_is_told_with_those_there_are() -> None:
    with pytest.raises(HarnessError, match=r"they have kernels 5\.14\.0-427\.13\.1\.el9_4\."):
        run("good", TAKE, KERNEL_VERSION="5.14.0-427.13.1.el9_2.x86_64")
