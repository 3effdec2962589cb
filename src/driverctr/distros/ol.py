"""Oracle Linux: RHEL's kernel built anew, and the Unbreakable Enterprise Kernel beside it."""

from typing import ClassVar

from driverctr.distros.rhel import Rhel


class OracleLinux(Rhel, name="ol"):
    """An Unbreakable kernel bears "uek" in its release and in its packages' names (docs.oracle.com, "UEK")."""

    kernels: ClassVar[str] = "ol"
    extended: ClassVar[tuple[str, ...]] = ()
    general: ClassVar[tuple[str, ...]] = ("ol{major}_baseos_latest", "ol{major}_appstream", "ol{major}_UEK*")
    realtime: ClassVar[tuple[str, ...]] = ()
    containers: ClassVar[tuple[str, ...]] = ()

    def package(self, release: str, part: str) -> str:
        """kernel-uek-devel-5.15.0-206.153.7.1.el9uek.x86_64."""
        name = super().package(release, part)
        return name.replace("kernel-", "kernel-uek-", 1) if "uek" in release else name
