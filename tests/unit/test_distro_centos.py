"""CentOS Stream: no minors."""

from driverctr import distros
from driverctr.distros import Rung
from driverctr.facts.osrelease import OsRelease

STREAM = distros.of(OsRelease("centos", "9", ("rhel", "fedora")))


def test_no_build_is_taken_for_a_minors() -> None:
    kernel = STREAM.identify("5.14.0-427.el9.x86_64")
    assert kernel.minor == "" and STREAM.repositories(kernel).ladder == (Rung("9", ("baseos", "appstream")),)


def test_variants_have_rhels_names() -> None:
    wanted = STREAM.header_packages("5.14.0-484.el9.x86_64+debug")
    assert wanted.package == "kernel-debug-devel-5.14.0-484.el9.x86_64"
