"""Ubuntu's package names."""

import re
from typing import ClassVar

from driverctr.distros import HeaderPackages, KernelIdentity
from driverctr.distros.debian import Debian


class Ubuntu(Debian, name="ubuntu"):
    """Ubuntu: headers of a release depend on those of its ABI, which have the name of the kernel's source."""

    kernels: ClassVar[str] = "ubuntu"

    def identify(self, release: str, version: str = "") -> KernelIdentity:
        """5.15.0-105-generic: series, ABI, flavour."""
        named = re.fullmatch(r"(?P<series>\d+\.\d+\.\d+)-(?P<abi>\d+)-(?P<flavour>[\w-]+)", release)
        return KernelIdentity(release, flavour=named["flavour"] if named else "", abi=named["abi"] if named else "")

    def header_packages(self, release: str) -> HeaderPackages:
        """linux-headers-<release>, with linux[-<source>]-headers-<abi>."""
        return HeaderPackages(f"linux-headers-{release}", re.compile(r"linux-([\w.-]+-)?headers-\d[\w.-]*"))

    def module_packages(self, release: str) -> tuple[str, ...]:
        """The modules, and those that a slim cloud kernel leaves out."""
        return (f"linux-modules-{release}", f"linux-modules-extra-{release}")
