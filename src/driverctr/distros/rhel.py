"""Red Hat Enterprise Linux's package names."""

import re
from pathlib import Path
from typing import ClassVar

from driverctr.distros import CertificatePlace, Distro, HeaderPackages, KernelIdentity, Tool
from driverctr.facts.osrelease import OsRelease


class Rhel(Distro, name="rhel"):
    """RHEL: one kernel-devel package holds all headers of a kernel."""

    tool: ClassVar[Tool] = Tool.DNF
    kernels: ClassVar[str] = "rhel"
    certificates: ClassVar[CertificatePlace] = CertificatePlace(
        Path("/etc/pki/ca-trust/source/anchors"),
        ("update-ca-trust", "extract"),
        (Path("/etc/pki/ca-trust/extracted/pem"),),
    )

    def identify(self, release: str, version: str = "") -> KernelIdentity:
        """5.14.0-427.13.1.el9_4.x86_64."""
        named = re.search(r"\.el(?P<major>\d+)(_(?P<minor>\d+))?", release)
        minor = f"{named['major']}.{named['minor']}" if named and named["minor"] else ""
        return KernelIdentity(release, minor=minor)

    def header_packages(self, release: str) -> HeaderPackages:
        """kernel-devel-<release>, alone."""
        return HeaderPackages(f"kernel-devel-{release}", re.compile(r"(?!)"))

    def module_packages(self, release: str) -> tuple[str, ...]:
        """The modules' own packages."""
        return (f"kernel-modules-core-{release}", f"kernel-core-{release}", f"kernel-modules-{release}")

    def compiler_package(self, compiler: str) -> str:
        """The plain compiler."""
        return compiler

    def release_kernels(self, release: OsRelease) -> str:
        """A minor's kernels are in the repositories of its major."""
        return release.major
