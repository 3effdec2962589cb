"""AlmaLinux: compatible with RHEL, built from its own sources, in repositories of its own."""

from typing import ClassVar

from driverctr.distros.rhel import Rhel


class AlmaLinux(Rhel, name="almalinux"):
    """The kernels have RHEL's names and are other builds (`uname -v`); no extended support, minors go to the vault."""

    kernels: ClassVar[str] = "almalinux"
    extended: ClassVar[tuple[str, ...]] = ()
    general: ClassVar[tuple[str, ...]] = ("baseos", "appstream")
    realtime: ClassVar[tuple[str, ...]] = ("rt", "nfv")
    containers: ClassVar[tuple[str, ...]] = ()
