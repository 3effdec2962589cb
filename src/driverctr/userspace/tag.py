"""The tag of a precompiled image: `<driver branch>-<kernel release>-<distribution>` (reference F.2)."""

from driverctr.errors import Code, DriverError
from driverctr.userspace.image import Image

MAJOR_ONLY = frozenset(("almalinux", "centos", "ol", "rhel", "rocky"))
"""Distributions whose minor releases share an image: gpu-operator names them by ID and major alone."""


def of_distribution(name: str, version: str) -> str:
    """As tags call a distribution, from ID and VERSION_ID of os-release(5): ubuntu22.04, rhel9, debian12."""
    return name + (version.partition(".")[0] if name in MAJOR_ONLY else version)


def precompiled(driver: str, release: str, distribution: str) -> str:
    """The tag for a driver version or branch; a `+` in a kernel release is none of a tag's letters (OCI, "tag")."""
    return f"{driver}-{release}-{distribution}".replace("+", "_")


def for_kernel(described: Image, release: str) -> str:
    """The tag of an image as this one that is precompiled for a kernel; by branch, as gpu-operator asks for it."""
    branch = described.driver_version.text.partition(".")[0]
    return precompiled(branch, release, of_distribution(described.distribution, described.distribution_version))


def check_kernel(described: Image, release: str, *, fallback: bool) -> None:
    """Refuse to serve another kernel than that of a precompiled image, unless the user wants a `fallback`.

    Raises DriverError (wrong-kernel) naming the image that would serve it.
    """
    if described.kernel_release not in ("", release) and not fallback:
        raise DriverError(
            Code.WRONG_KERNEL,
            f"this image is precompiled for kernel {described.kernel_release}, and the node's is {release}",
            f"Use the image tagged {for_kernel(described, release)} on this node, or set PRECOMPILED_FALLBACK=true to "
            "have the modules from store, remote folder or build",
        )
