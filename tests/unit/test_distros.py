"""Kernels of Debian and Ubuntu: identity, packages, repositories; and the compilers of all.

Each row cites where the kernel is known from: "in the wild" are lines of `uname -a` in public reports, found by their
exact text.
"""

from typing import NamedTuple

import pytest

from driverctr import distros
from driverctr.distros import Rung
from driverctr.facts.osrelease import OsRelease

DEBIAN_12, DEBIAN_13 = OsRelease("debian", "12"), OsRelease("debian", "13")
UBUNTU_20, UBUNTU_22 = OsRelease("ubuntu", "20.04", ("debian",)), OsRelease("ubuntu", "22.04", ("debian",))
UBUNTU_24, UBUNTU_26 = OsRelease("ubuntu", "24.04", ("debian",)), OsRelease("ubuntu", "26.04", ("debian",))
RHEL_8, RHEL_9, RHEL_10 = (OsRelease("rhel", version, ("fedora",)) for version in ("8.10", "9.4", "10.0"))


class Row(NamedTuple):
    """A kernel: of which system, `uname -r`, `uname -v`; flavour, ABI, version of its package; where known from."""

    system: OsRelease
    release: str
    version: str
    flavour: str
    abi: str
    package_version: str
    known_from: str


APT_KERNELS = [
    Row(
        DEBIAN_12,
        "6.1.0-56-amd64",
        "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-08-30)",
        "amd64",
        "56",
        "6.1.192-2",
        "the proving ground of this project",
    ),
    Row(
        DEBIAN_12,
        "6.1.0-31-cloud-amd64",
        "#1 SMP PREEMPT_DYNAMIC Debian 6.1.128-1 (2025-02-07)",
        "cloud-amd64",
        "31",
        "6.1.128-1",
        "in the wild",
    ),
    Row(
        DEBIAN_12,
        "6.1.0-18-rt-amd64",
        "#1 SMP PREEMPT_RT Debian 6.1.76-1 (2024-02-01)",
        "rt-amd64",
        "18",
        "6.1.76-1",
        "in the wild",
    ),
    Row(
        DEBIAN_12,
        "6.12.12+bpo-amd64",
        "#1 SMP PREEMPT_DYNAMIC Debian 6.12.12-1~bpo12+1 (2025-02-23)",
        "amd64",
        "bpo",
        "6.12.12-1~bpo12+1",
        "in the wild (Debian backports until 2025)",
    ),
    Row(
        DEBIAN_12,
        "6.12.74+deb12-amd64",
        "#1 SMP PREEMPT_DYNAMIC Debian 6.12.74-2~bpo12+1 (2026-03-13)",
        "amd64",
        "deb12",
        "6.12.74-2~bpo12+1",
        "in the wild (Debian backports since 2025)",
    ),
    Row(
        DEBIAN_13,
        "6.12.63+deb13-amd64",
        "#1 SMP PREEMPT_DYNAMIC Debian 6.12.63-1 (2025-12-30)",
        "amd64",
        "deb13",
        "6.12.63-1",
        "in the wild",
    ),
    Row(DEBIAN_13, "6.12.74+deb13+1-amd64", "", "amd64", "deb13+1", "", "package linux-headers-6.12.74+deb13+1-amd64"),
    Row(
        DEBIAN_13,
        "6.12.101+deb13-rt-amd64",
        "",
        "rt-amd64",
        "deb13",
        "",
        "package linux-headers-6.12.101+deb13-rt-amd64",
    ),
    Row(
        UBUNTU_22,
        "5.15.0-1037-azure",
        "#44-Ubuntu SMP Thu Apr 20 13:19:31 UTC 2023",
        "azure",
        "1037",
        "5.15.0-1037.44",
        "in the wild",
    ),
    Row(
        UBUNTU_22,
        "6.5.0-1021-azure",
        "#22~22.04.1-Ubuntu SMP Tue Apr 30 16:08:18 UTC 2024",
        "azure",
        "1021",
        "6.5.0-1021.22~22.04.1",
        "in the wild",
    ),
    Row(
        UBUNTU_22,
        "5.19.0-1025-aws",
        "#26~22.04.1-Ubuntu SMP Mon Apr 24 01:58:03 UTC 2023",
        "aws",
        "1025",
        "5.19.0-1025.26~22.04.1",
        "in the wild",
    ),
    Row(
        UBUNTU_22,
        "5.15.0-1032-realtime",
        "#35-Ubuntu SMP PREEMPT_RT",
        "realtime",
        "1032",
        "5.15.0-1032.35",
        "in the wild",
    ),
    Row(
        UBUNTU_22,
        "5.15.0-1053-raspi",
        "#56-Ubuntu SMP PREEMPT Mon Apr 15 18:50:10 UTC 2024",
        "raspi",
        "1053",
        "5.15.0-1053.56",
        "in the wild",
    ),
    Row(
        UBUNTU_22,
        "5.15.0-1053-nvidia",
        "#54-Ubuntu",
        "nvidia",
        "1053",
        "5.15.0-1053.54",
        "in the wild",
    ),
    Row(UBUNTU_22, "6.8.0-51-generic", "", "generic", "51", "", "package linux-headers-6.8.0-51-generic (HWE)"),
    Row(UBUNTU_22, "5.15.0-1116-azure-fips", "", "azure-fips", "1116", "", "AgentBaker, a test of its kernels"),
    Row(UBUNTU_22, "5.15.0-125-generic-64k", "", "generic-64k", "125", "", "USN, linux-image-5.15.0-125-generic-64k"),
    Row(UBUNTU_22, "6.5.0-1019-nvidia-64k", "", "nvidia-64k", "1019", "", "in the wild"),
    Row(
        UBUNTU_20,
        "5.4.0-1007-fips",
        "#8-Ubuntu SMP Wed Jul 29 21:42:48 UTC 2020",
        "fips",
        "1007",
        "5.4.0-1007.8",
        "in the wild",
    ),
    Row(
        UBUNTU_24,
        "6.8.0-1012-aws",
        "#13-Ubuntu SMP Mon Jul 15 13:40:27 UTC 2024",
        "aws",
        "1012",
        "6.8.0-1012.13",
        "in the wild",
    ),
    Row(
        UBUNTU_24,
        "6.8.0-47-lowlatency",
        "#47.1-Ubuntu SMP PREEMPT_DYNAMIC Mon Oct  7 15:01:17 UTC 2024",
        "lowlatency",
        "47",
        "6.8.0-47.47.1",
        "in the wild",
    ),
    Row(
        UBUNTU_24,
        "6.8.1-1015-realtime",
        "#16-Ubuntu SMP PREEMPT_RT Fri Jun 26",
        "realtime",
        "1015",
        "6.8.1-1015.16",
        "in the wild",
    ),
    Row(
        UBUNTU_24,
        "6.8.0-2049-raspi-realtime",
        "#50-Ubuntu SMP PREEMPT_RT",
        "raspi-realtime",
        "2049",
        "6.8.0-2049.50",
        "in the wild",
    ),
    Row(UBUNTU_24, "6.8.0-1014-azure-fde", "", "azure-fde", "1014", "", "USN, linux-image-6.8.0-1014-azure-fde"),
    Row(
        UBUNTU_24,
        "6.17.0-1026-nvidia",
        "#26-Ubuntu SMP PREEMPT_DYNAMIC",
        "nvidia",
        "1026",
        "6.17.0-1026.26",
        "in the wild (DGX Spark)",
    ),
    Row(UBUNTU_24, "6.17.0-1014-nvidia-64k", "", "nvidia-64k", "1014", "", "in the wild (GB200)"),
    Row(
        UBUNTU_24,
        "6.17.0-1015-azure",
        "#15~24.04.1-Ubuntu SMP Wed May  6 22:37:49 UTC 2026",
        "azure",
        "1015",
        "6.17.0-1015.15~24.04.1",
        "in the wild",
    ),
    Row(
        UBUNTU_26,
        "7.0.0-1007-oracle",
        "#7-Ubuntu SMP PREEMPT Fri Jun 19 02:38:12 UTC 2026",
        "oracle",
        "1007",
        "7.0.0-1007.7",
        "in the wild",
    ),
    Row(UBUNTU_26, "7.0.0-14-generic", "", "generic", "14", "", "in the wild"),
    Row(
        UBUNTU_26,
        "7.0.0-1015-raspi",
        "#15-Ubuntu SMP PREEMPT_DYNAMIC",
        "raspi",
        "1015",
        "7.0.0-1015.15",
        "in the wild",
    ),
]
"""Canonical's kernels whose `uname -v` nobody showed have an empty one."""


@pytest.mark.parametrize("row", APT_KERNELS, ids=lambda row: f"{row.system.id}-{row.release}")
def test_a_kernel_of_debian_or_ubuntu_is_identified(row: Row) -> None:
    distro = distros.of(row.system)
    found = distro.identify(row.release, row.version)
    assert (found.release, found.flavour, found.abi) == (row.release, row.flavour, row.abi)
    assert (found.package_version, found.minor) == (row.package_version, "") and found.source and row.known_from
    assert distro.header_packages(row.release).package == f"linux-headers-{row.release}"
    modules = "image" if row.system.id == "debian" else "modules"
    assert distro.module_packages(row.release)[0] == f"linux-{modules}-{row.release}"
    assert distro.repositories(found).ladder == (Rung(""),)


@pytest.mark.parametrize(
    ("system", "release", "companion", "known_from"),
    [
        (DEBIAN_12, "6.1.0-31-cloud-amd64", "linux-headers-6.1.0-31-common", "Debian kernel handbook, 4"),
        (DEBIAN_12, "6.1.0-31-cloud-amd64", "linux-kbuild-6.1", "Debian kernel handbook, 4"),
        (DEBIAN_12, "6.1.0-18-rt-amd64", "linux-headers-6.1.0-18-common-rt", "Debian kernel handbook, 4"),
        (DEBIAN_12, "6.12.74+deb12-amd64", "linux-kbuild-6.12.74+deb12", "Debian backports"),
        (DEBIAN_13, "6.12.63+deb13-amd64", "linux-headers-6.12.63+deb13-common", "in the wild"),
        (UBUNTU_22, "5.15.0-134-generic", "linux-headers-5.15.0-134", "in the wild"),
        (UBUNTU_22, "6.8.0-51-generic", "linux-hwe-6.8-headers-6.8.0-51", "in the wild"),
        (UBUNTU_22, "6.8.0-1051-aws", "linux-aws-6.8-headers-6.8.0-1051", "AWS, a test of its header packages"),
        (UBUNTU_22, "5.15.0-1091-nvidia", "linux-nvidia-headers-5.15.0-1091", "in the wild"),
        (UBUNTU_24, "6.8.0-1051-nvidia", "linux-nvidia-headers-6.8.0-1051", "in the wild"),
        (UBUNTU_20, "5.4.0-1010-azure", "linux-azure-headers-5.4.0-1010", "USN of linux-azure"),
    ],
)
def test_the_headers_that_others_depend_on_are_known(
    system: OsRelease, release: str, companion: str, known_from: str
) -> None:
    assert distros.of(system).header_packages(release).companions.fullmatch(companion) and known_from


@pytest.mark.parametrize(
    ("system", "release", "other"),
    [
        (DEBIAN_12, "6.1.0-31-amd64", "linux-image-6.1.0-31-amd64"),
        (DEBIAN_12, "6.1.0-31-amd64", "linux-compiler-gcc-12-x86"),
        (UBUNTU_22, "6.8.0-51-generic", "linux-hwe-6.8-headers-6.8.0-52"),
        (UBUNTU_22, "6.8.0-51-generic", "linux-headers-6.8.0-51-lowlatency"),
        (UBUNTU_22, "6.8.0-51-generic", "linux-hwe-6.8-tools-6.8.0-51"),
        (UBUNTU_22, "6.8.0-51-generic", "libelf1"),
        (RHEL_9, "5.14.0-427.13.1.el9_4.x86_64", "kernel-core"),
        (RHEL_9, "5.14.0-427.13.1.el9_4.x86_64", ""),
    ],
)
def test_nothing_else_comes_with_them(system: OsRelease, release: str, other: str) -> None:
    assert not distros.of(system).header_packages(release).companions.fullmatch(other)


@pytest.mark.parametrize(
    ("flavour", "service"),
    [("fips", "fips-updates"), ("aws-fips", "fips-updates"), ("realtime", "realtime-kernel"), ("generic", "")],
)
def test_what_is_in_ubuntu_pro_alone_is_known(flavour: str, service: str) -> None:
    distro = distros.of(UBUNTU_22)
    assert distro.repositories(distro.identify(f"5.15.0-1032-{flavour}")).pro_service == service


def test_a_kernel_of_nobodys_name_is_asked_for_all_the_same() -> None:
    distro = distros.of(UBUNTU_22)
    assert distro.identify("6.8.4-rt11-custom", "#1 SMP").flavour == ""
    wanted = distro.header_packages("6.8.4-rt11-custom")
    assert wanted.package == "linux-headers-6.8.4-rt11-custom"
    assert wanted.companions.fullmatch("linux-headers-6.8.4-rt11")
    assert distros.of(DEBIAN_12).identify("6.6.28+rpt-rpi-v8", "#1 SMP PREEMPT Debian 1:6.6.28-1").flavour == "rpi-v8"
    assert distros.of(RHEL_9).identify("6.1.115-126.197.amzn2023.x86_64").minor == ""


@pytest.mark.parametrize(
    ("system", "text", "package"),
    [
        (DEBIAN_12, "gcc-12 (Debian 12.2.0-14) 12.2.0", "gcc-12"),
        (DEBIAN_13, "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0", "gcc-14"),
        (UBUNTU_22, "x86_64-linux-gnu-gcc-12 (Ubuntu 12.3.0-1ubuntu1~22.04) 12.3.0", "gcc-12"),
        (UBUNTU_24, "aarch64-linux-gnu-gcc-13 (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0", "gcc-13"),
        (RHEL_9, "gcc (GCC) 11.4.1 20231218 (Red Hat 11.4.1-3)", "gcc"),
        (RHEL_8, "gcc (GCC) 8.5.0 20210514 (Red Hat 8.5.0-22)", "gcc"),
        (RHEL_8, "gcc (GCC) 13.3.1 20240611 (Red Hat 13.3.1-2)", "gcc-toolset-13-gcc"),
        (RHEL_10, "gcc (GCC) 14.2.1 20250110 (Red Hat 14.2.1-7)", "gcc"),
        (RHEL_9, "gcc", "gcc"),
    ],
)
def test_the_compilers_package_is_named(system: OsRelease, text: str, package: str) -> None:
    assert distros.of(system).compiler_package(text) == package
