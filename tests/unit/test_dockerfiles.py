"""What the Dockerfiles install, as no test here runs on the real bases: what a stage's programs need is there."""

import re
from pathlib import Path

import pytest

from harness.flavours import FLAVOURS

REPOSITORY = Path(__file__).parents[2]
NAMES = sorted(FLAVOURS)


def installed(name: str, stage: str) -> set[str]:
    """The packages that a stage of a Dockerfile installs itself."""
    text = (REPOSITORY / f"Dockerfile.{name}").read_text().replace("\\\n", " ")
    (body,) = re.findall(rf"^FROM \S+ AS {stage}$(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^RUN sh \S+/(?:apt|dnf)-install\.sh (.*)$", body, re.MULTILINE)
    return {word.strip('"') for command in commands for word in command.split()}


@pytest.mark.parametrize("name", NAMES)
def test_nvidias_installer_finds_what_it_looks_for(name: str) -> None:
    """It ends without dmesg, modprobe, rmmod, lsmod or depmod, whatever it is to install (its misc.c: __utils)."""
    assert {"kmod", "util-linux", "binutils", "${PYTHON}"} <= installed(name, "nvidia")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_file_can_be_fetched_by_https_and_unpacked(name: str) -> None:
    packers = {"xz", "tar", "gawk", "zstd", "which"} if name == "rhel" else {"xz-utils", "zstd"}
    assert {"ca-certificates", *packers} <= installed(name, "nvidia")


def test_rhels_image_can_download_and_unpack_headers() -> None:
    """Of these UBI's images lack most: `dnf download` is a plugin, and rpm2cpio pipes into cpio."""
    assert {"dnf-plugins-core", "cpio"} <= installed("rhel", "without-driverctr")


@pytest.mark.parametrize("name", NAMES)
def test_a_precompiled_image_has_nothing_to_build_with(name: str) -> None:
    assert installed(name, "precompiled") >= {"kmod", "util-linux", "ca-certificates", "${PYTHON}"}
    assert not installed(name, "precompiled") & {"gcc", "${COMPILERS}", "make", "binutils", "dnf-plugins-core"}


def test_rhels_packages_can_be_fetched_and_unpacked() -> None:
    """Of dnf-plugins-core are `dnf download` and `dnf repoquery`; rpm2cpio is rpm's."""
    assert {"dnf-plugins-core", "cpio", "binutils"} <= installed("rhel", "nvidia")
