"""Oracle Linux: RHEL's kernel, and Oracle's own beside it."""

from driverctr import distros
from driverctr.distros import Rung
from driverctr.facts.osrelease import OsRelease

ORACLE = distros.of(OsRelease("ol", "9.4", ("fedora",)))
UNBREAKABLE = "5.15.0-206.153.7.1.el9uek.x86_64"


def test_the_unbreakable_kernels_packages_say_so() -> None:
    assert ORACLE.header_packages(UNBREAKABLE).package == f"kernel-uek-devel-{UNBREAKABLE}"
    same = "5.14.0-427.13.1.el9_4.x86_64"
    assert ORACLE.header_packages(same).package == f"kernel-devel-{same}"


def test_its_repositories_are_named_by_the_major() -> None:
    names = ("ol9_baseos_latest", "ol9_appstream", "ol9_UEK*")
    assert ORACLE.repositories(ORACLE.identify(UNBREAKABLE)).ladder == (Rung("9", names),)
