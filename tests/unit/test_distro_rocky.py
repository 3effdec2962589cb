"""Rocky Linux: RHEL's names in repositories of its own."""

from driverctr import distros
from driverctr.distros import Rung
from driverctr.facts.osrelease import OsRelease

ROCKY = distros.of(OsRelease("rocky", "9.4", ("rhel", "centos", "fedora")))


def test_a_minor_is_asked_for_and_then_the_major() -> None:
    kernel = ROCKY.identify("5.14.0-427.42.1.el9_4.x86_64")
    names = ("baseos", "appstream")
    assert ROCKY.repositories(kernel, openshift="4.18").ladder == (Rung("9.4", names), Rung("9", names))


def test_its_packages_are_no_other_rebuilds() -> None:
    assert ROCKY.describe_mismatch(OsRelease("rhel", "9.4")) and not ROCKY.describe_mismatch(OsRelease("rocky", "9.6"))
