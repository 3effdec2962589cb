"""Kernels of RHEL and what is built on it: identity, packages, and the ladder of repositories.

Each row cites where the kernel is known from; "in the wild" are lines of `uname -a` found by their exact text.
"""

from typing import NamedTuple

import pytest

from driverctr import distros
from driverctr.distros import Repositories, Rung
from driverctr.facts.osrelease import OsRelease

RHEL_8, RHEL_9, RHEL_10 = (OsRelease("rhel", version, ("fedora",)) for version in ("8.10", "9.4", "10.0"))
ROCKY_9 = OsRelease("rocky", "9.4", ("rhel", "centos", "fedora"))


class Row(NamedTuple):
    """A kernel: of which system, `uname -r`; its flavour and minor, the package of its headers; where known from."""

    system: OsRelease
    release: str
    flavour: str
    minor: str
    headers: str
    known_from: str


KERNELS = [
    Row(
        RHEL_8,
        "4.18.0-553.34.1.el8_10.x86_64",
        "",
        "8.10",
        "kernel-devel-4.18.0-553.34.1.el8_10.x86_64",
        "in the wild: #1 SMP Mon Dec 16 04:25:43 EST 2024",
    ),
    Row(
        RHEL_8,
        "4.18.0-193.el8.x86_64+debug",
        "debug",
        "8.2",
        "kernel-debug-devel-4.18.0-193.el8.x86_64",
        "in the wild",
    ),
    Row(
        RHEL_8,
        "4.18.0-305.19.1.rt7.91.el8_4.x86_64",
        "rt",
        "8.4",
        "kernel-rt-devel-4.18.0-305.19.1.rt7.91.el8_4.x86_64",
        "in the wild (OpenShift 4.8)",
    ),
    Row(
        RHEL_8,
        "4.18.0-305.rt7.72.el8.x86_64",
        "rt",
        "8.4",
        "kernel-rt-devel-4.18.0-305.rt7.72.el8.x86_64",
        "in the wild",
    ),
    Row(
        RHEL_8,
        "4.18.0-172.rt13.29.el8.x86_64+debug",
        "rt-debug",
        "",
        "kernel-rt-debug-devel-4.18.0-172.rt13.29.el8.x86_64",
        "in the wild (a build between two minors)",
    ),
    Row(
        RHEL_9,
        "5.14.0-427.13.1.el9_4.x86_64",
        "",
        "9.4",
        "kernel-devel-5.14.0-427.13.1.el9_4.x86_64",
        "in the wild: #1 SMP PREEMPT_DYNAMIC Wed Apr 10 10:29:16 EDT 2024",
    ),
    Row(
        RHEL_9,
        "5.14.0-427.13.1.el9_4.aarch64+64k",
        "64k",
        "9.4",
        "kernel-64k-devel-5.14.0-427.13.1.el9_4.aarch64",
        "Mellanox/doca-driver-build#4: #1 SMP PREEMPT_DYNAMIC Wed Apr 10 15:34:42 UTC 2024",
    ),
    Row(
        RHEL_9,
        "5.14.0-503.22.1.el9_5.x86_64+rt",
        "rt",
        "9.5",
        "kernel-rt-devel-5.14.0-503.22.1.el9_5.x86_64",
        "in the wild",
    ),
    Row(
        RHEL_9,
        "5.14.0-427.el9.x86_64",
        "",
        "9.4",
        "kernel-devel-5.14.0-427.el9.x86_64",
        "reference G, defect 45: a kernel that does not name its minor",
    ),
    Row(
        RHEL_9,
        "5.14.0-503.21.1.el9_5.x86_64",
        "",
        "9.5",
        "kernel-devel-5.14.0-503.21.1.el9_5.x86_64",
        "NVIDIA/yum-packaging-nvidia-plugin#16",
    ),
    Row(
        RHEL_10,
        "6.12.0-124.16.1.el10_1.x86_64",
        "",
        "10.1",
        "kernel-devel-6.12.0-124.16.1.el10_1.x86_64",
        "in the wild: #1 SMP PREEMPT_DYNAMIC Sat Nov 22 19:23:12 EST 2025",
    ),
    Row(
        RHEL_10,
        "6.12.0-211.51.1.el10_2.x86_64+rt",
        "rt",
        "10.2",
        "kernel-rt-devel-6.12.0-211.51.1.el10_2.x86_64",
        "in the wild",
    ),
    Row(
        RHEL_10,
        "6.12.0-31.el10.x86_64+debug",
        "debug",
        "",
        "kernel-debug-devel-6.12.0-31.el10.x86_64",
        "in the wild (before 10.0)",
    ),
    Row(
        ROCKY_9,
        "5.14.0-427.42.1.el9_4.x86_64",
        "",
        "9.4",
        "kernel-devel-5.14.0-427.42.1.el9_4.x86_64",
        "in the wild: #1 SMP PREEMPT_DYNAMIC Thu Oct 31 14:01:51 UTC 2024",
    ),
    Row(
        ROCKY_9,
        "5.14.0-427.28.1.el9_4.cloud.1.0.x86_64",
        "",
        "9.4",
        "kernel-devel-5.14.0-427.28.1.el9_4.cloud.1.0.x86_64",
        "in the wild (the Cloud SIG's)",
    ),
]


@pytest.mark.parametrize("row", KERNELS, ids=lambda row: f"{row.system.id}-{row.release}")
def test_a_kernel_is_identified_by_its_release_alone(row: Row) -> None:
    distro = distros.of(row.system)
    found = distro.identify(row.release, "#1 SMP PREEMPT_DYNAMIC")
    architecture = "aarch64" if "aarch64" in row.release else "x86_64"
    assert (found.flavour, found.minor, found.architecture) == (row.flavour, row.minor, architecture)
    assert found.package_version == row.release.split(f".{architecture}")[0] and found.source and row.known_from
    assert distro.header_packages(row.release).package == row.headers
    first = "core" if ".el8" in row.release else "modules-core"
    assert distro.module_packages(row.release)[0] == row.headers.replace("-devel-", f"-{first}-")


def names(*kinds: str, major: str = "9", arch: str = "x86_64") -> tuple[str, ...]:
    return tuple(f"rhel-{major}-for-{arch}-{kind}-rpms" for kind in kinds)


def ladder(system: OsRelease, release: str, releasever: str = "", openshift: str = "") -> tuple[Rung, ...]:
    distro = distros.of(system)
    found = distro.repositories(distro.identify(release), releasever=releasever, openshift=openshift)
    assert found == Repositories(found.ladder)
    return found.ladder


PLAIN, EXTENDED = names("baseos", "appstream"), names("baseos-eus", "appstream-eus")


@pytest.mark.parametrize(
    ("release", "releasever", "expected"),
    [
        ("5.14.0-427.13.1.el9_4.x86_64", "", [("9.4", EXTENDED), ("9.4", PLAIN), ("9", PLAIN)]),
        ("5.14.0-427.el9.x86_64", "", [("9.4", EXTENDED), ("9.4", PLAIN), ("9", PLAIN)]),
        ("5.14.0-503.22.1.el9_5.x86_64", "", [("9.5", PLAIN), ("9", PLAIN)]),
        ("5.14.0-427.13.1.el9_4.x86_64", "9.2", [("9.2", EXTENDED), ("9.2", PLAIN)]),
        ("5.14.0-427.13.1.el9_4.x86_64", "9", [("9", PLAIN)]),
        ("5.14.0-9999.el9.x86_64", "", [("9", PLAIN)]),
    ],
)
def test_extended_support_is_asked_first_then_the_minor_then_the_major_or_what_the_user_says(
    release: str, releasever: str, expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert ladder(RHEL_9, release, releasever) == tuple(Rung(version, enable) for version, enable in expected)


def test_each_release_is_named_once() -> None:
    assert Repositories(ladder(RHEL_9, "5.14.0-427.13.1.el9_4.x86_64")).releasevers == ("9.4", "9")


def test_realtime_and_openshift_have_repositories_of_their_own() -> None:
    beside = names("rt", "nfv")
    assert ladder(RHEL_9, "5.14.0-503.22.1.el9_5.x86_64+rt")[0] == Rung("9.5", (*PLAIN, *beside))
    openshift = ladder(RHEL_9, "5.14.0-427.13.1.el9_4.x86_64", openshift="4.18")
    assert all(rung.enable[-1] == "rhocp-4.18-for-rhel-9-x86_64-rpms" for rung in openshift)
    arm = ladder(RHEL_9, "5.14.0-427.13.1.el9_4.aarch64+64k")
    assert arm[1] == Rung("9.4", names("baseos", "appstream", arch="aarch64"))
