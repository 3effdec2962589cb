"""Debian's package names."""

import re

from driverctr.distros import Distro, HeaderPackages


class Debian(Distro, name="debian"):
    """Debian: headers are split into a flavour, a common part and the build tools (Debian kernel handbook, 4)."""

    def header_packages(self, release: str) -> HeaderPackages:
        """linux-headers-<release> depends on its -common part and on linux-kbuild, whose name changed over time."""
        return HeaderPackages(f"linux-headers-{release}", re.compile(r"linux-(headers-.+-common(-rt)?|kbuild-.+)"))

    def compiler_package(self, compiler: str) -> str:
        """The package bears the command's own name, less the target triplet (x86_64-linux-gnu-gcc-12)."""
        return re.sub(r"^[\w]+-linux-gnu-", "", compiler)
