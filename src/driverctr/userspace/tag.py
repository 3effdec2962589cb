"""The tag of a precompiled image: `<driver branch>-<kernel release>-<distribution>` (reference F.2)."""

from driverctr.errors import Code, DriverError
from driverctr.userspace.image import Image


def for_kernel(described: Image, release: str) -> str:
    """The tag of an image as this one that is precompiled for a kernel; by branch, as gpu-operator asks for it.

    A `+` in a kernel release is none of a tag's letters (OCI distribution specification, "Pulling manifests").
    """
    from driverctr import distros
    from driverctr.facts.osrelease import OsRelease

    name, version = described.distribution, described.distribution_version
    base = OsRelease(name, version)
    kind = distros.find(base)
    branch = described.driver_version.text.partition(".")[0]
    return f"{branch}-{release}-{kind(base).tag if kind else name + version}".replace("+", "_")


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
