"""Ubuntu's kernels and packages."""

import re
from typing import ClassVar

from driverctr.distros import HeaderPackages, KernelIdentity, Repositories, Rung
from driverctr.distros.debian import Debian

RELEASE = re.compile(r"(?P<series>\d+\.\d+\.\d+)-(?P<abi>\d+)-(?P<flavour>[a-z][\w-]*)")
"""5.15.0-105-generic, 6.8.0-1014-azure-fde (wiki.ubuntu.com/Kernel/FAQ, "What does a kernel version mean")."""

VERSION = re.compile(r"#(?P<upload>[\d.]+(~[\d.]+)?(\+\w+)?)-Ubuntu ")
"""#26~22.04.1-Ubuntu SMP ...: the upload, which the package's version has after the ABI."""

PRO_SERVICES = {"fips": "fips-updates", "realtime": "realtime-kernel"}
"""Services of Ubuntu Pro by a word of the flavour (ubuntu.com/pro, "Services"; reference E, FIPS)."""


class Ubuntu(Debian, name="ubuntu"):
    """Ubuntu: headers of a release depend on those of its ABI, which bear the name of the kernel's source."""

    kernels: ClassVar[str] = "ubuntu"

    def identify(self, release: str, version: str = "") -> KernelIdentity:
        """Series, ABI and flavour are in the release, the upload in the version (wiki.ubuntu.com/Kernel/FAQ)."""
        named, told = RELEASE.fullmatch(release), VERSION.search(f"{version} ")
        return KernelIdentity(
            release,
            flavour=named["flavour"] if named else "",
            abi=named["abi"] if named else "",
            package_version=f"{named['series']}-{named['abi']}.{told['upload']}" if named and told else "",
            source="wiki.ubuntu.com/Kernel/FAQ",
        )

    def header_packages(self, release: str) -> HeaderPackages:
        """linux-headers-<release>, with linux-headers-<abi>, linux-aws-headers-<abi>, linux-hwe-6.8-headers-<abi>.

        The name in the middle is the source's (linux, linux-aws, linux-azure-6.8), which the release does not tell.
        """
        named = RELEASE.fullmatch(release)
        abi = re.escape(f"{named['series']}-{named['abi']}") if named else r"\d[\w.+~-]*"
        return HeaderPackages(f"linux-headers-{release}", re.compile(rf"linux-([a-z0-9][\w.+-]*-)?headers-{abi}"))

    def module_packages(self, release: str) -> tuple[str, ...]:
        """The modules, and those that a slim cloud kernel leaves out."""
        return (f"linux-modules-{release}", f"linux-modules-extra-{release}")

    def repositories(self, identity: KernelIdentity, *, releasever: str = "", openshift: str = "") -> Repositories:
        """The plain archive; FIPS and realtime kernels are in Ubuntu Pro's."""
        words = identity.flavour.split("-")
        service = next((service for word, service in PRO_SERVICES.items() if word in words), "")
        return Repositories((Rung(""),), service)
