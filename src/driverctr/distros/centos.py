"""CentOS Stream: what the next minor of RHEL will be; it has no minors itself."""

from typing import ClassVar

from driverctr.distros.rhel import Rhel


class CentOS(Rhel, name="centos"):
    """Its builds lie between those of RHEL's minors, so that none can be told of a kernel (5.14.0-487.el9)."""

    kernels: ClassVar[str] = "centos"
    extended: ClassVar[tuple[str, ...]] = ()
    general: ClassVar[tuple[str, ...]] = ("baseos", "appstream")
    realtime: ClassVar[tuple[str, ...]] = ("rt", "nfv")
    containers: ClassVar[tuple[str, ...]] = ()

    def minor_of_build(self, build: str, major: str) -> str:
        """There are none."""
        return ""
