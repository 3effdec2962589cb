"""Linux Mint: Ubuntu's own kernels, with a release number of its own."""

from typing import ClassVar

from driverctr.distros.ubuntu import Ubuntu

BASES = {"20": "20.04", "21": "22.04", "22": "24.04"}
"""Ubuntu's release below each of Mint's, by its major number (linuxmint.com, "Release notes")."""


class LinuxMint(Ubuntu, name="linuxmint"):
    """Served by Ubuntu's packages, and serving an Ubuntu host of the release below."""

    kernels: ClassVar[str] = "ubuntu"

    @property
    def line(self) -> str:
        """Those of the Ubuntu release below."""
        return BASES.get(self.release.major, "")
