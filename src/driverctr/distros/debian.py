"""Debian's kernels and packages; what is built on it, Ubuntu foremost, has these names too where it says no other."""

import re
from pathlib import Path
from typing import ClassVar

from driverctr.distros import CertificatePlace, Distro, HeaderPackages, KernelIdentity, Tool

RELEASE = re.compile(r"\d+(\.\d+)+(-(?P<abi>\d+)|\+(?P<origin>[a-z]\w*(\+\d+)?))-(?P<flavour>[a-z][\w-]*)")
"""6.1.0-56-amd64 by a number, and since 2024 6.12.9+bpo-cloud-amd64 or 6.12.74+deb13+1-amd64 by the upload."""

VERSION = re.compile(r" Debian (?P<version>[\w.+~-]+)")
"""#1 SMP PREEMPT_DYNAMIC Debian 6.1.128-1 (2025-02-07)."""


class Debian(Distro, name="debian"):
    """Debian: headers are split into a flavour, a common part and the build tools (Debian kernel handbook, 4)."""

    tool: ClassVar[Tool] = Tool.APT
    kernels: ClassVar[str] = "debian"
    certificates: ClassVar[CertificatePlace] = CertificatePlace(
        Path("/usr/local/share/ca-certificates"), ("update-ca-certificates",)
    )

    def identify(self, release: str, version: str = "") -> KernelIdentity:
        """The flavour ends the release; the version names the package's own (Debian kernel handbook, 5.1)."""
        named, told = RELEASE.fullmatch(release), VERSION.search(version)
        return KernelIdentity(
            release,
            flavour=named["flavour"] if named else "",
            abi=(named["abi"] or named["origin"]) if named else "",
            package_version=told["version"] if told else "",
            source="Debian kernel handbook, 5.1",
        )

    def header_packages(self, release: str) -> HeaderPackages:
        """linux-headers-<release> depends on its -common part and on linux-kbuild, whose name changed over time."""
        return HeaderPackages(f"linux-headers-{release}", re.compile(r"linux-(headers-.+-common(-rt)?|kbuild-.+)"))

    def module_packages(self, release: str) -> tuple[str, ...]:
        """The image's package holds the modules; the unsigned one has the same where the signed is gone."""
        return (f"linux-image-{release}", f"linux-image-{release}-unsigned")

    def compiler_package(self, cc_version_text: str) -> str:
        """The package bears the command's own name, less the target triplet (x86_64-linux-gnu-gcc-12)."""
        return re.sub(r"^\w+-linux-gnu-", "", cc_version_text.split(" ")[0])
