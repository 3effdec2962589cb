"""Linux Mint: Ubuntu's kernels, other release numbers."""

from driverctr import distros
from driverctr.facts.osrelease import OsRelease

MINT = distros.of(OsRelease("linuxmint", "21.3", ("ubuntu", "debian")))


def test_it_has_the_packages_of_the_ubuntu_below() -> None:
    assert MINT.header_packages("5.15.0-134-generic").package == "linux-headers-5.15.0-134-generic"
    assert not MINT.describe_mismatch(OsRelease("ubuntu", "22.04"))
    assert MINT.describe_mismatch(OsRelease("ubuntu", "24.04"))
