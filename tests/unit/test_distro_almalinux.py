"""AlmaLinux: RHEL's names in repositories of its own."""

from driverctr import distros
from driverctr.distros import Rung
from driverctr.facts.osrelease import OsRelease

ALMA = distros.of(OsRelease("almalinux", "10.1", ("rhel", "centos", "fedora")))


def test_a_minor_is_asked_for_and_then_the_major() -> None:
    kernel = ALMA.identify("6.12.0-124.8.1.el10_1.x86_64")
    names = ("baseos", "appstream")
    assert ALMA.repositories(kernel, openshift="4.18").ladder == (Rung("10.1", names), Rung("10", names))


def test_its_packages_are_no_other_rebuilds() -> None:
    assert ALMA.describe_mismatch(OsRelease("rocky", "10.1"))
    assert not ALMA.describe_mismatch(OsRelease("almalinux", "10.0"))
