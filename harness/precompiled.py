"""The image for one kernel: its modules taken from a folder, or built in the image's own build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness import bases, dockerd, flavours, image
from harness.bases import Base
from harness.errors import HarnessError
from harness.flavours import Flavour

STAGE = "precompiled"


def build(
    release: str,
    driver_version: str = image.DEFAULT_DRIVER,
    flavour: Flavour = flavours.DEBIAN,
    modules: Path | None = None,
    base: Base | None = None,
) -> str:
    """Return the tag of the image precompiled for a kernel release, the one that nodes ask for.

    `modules` is a folder of modules made elsewhere; without one the image's build compiles them. `base` is as image
    builds have it. Raises HarnessError.
    """
    if not release:
        raise HarnessError("no kernel release", "Name the kernel that the image is for")
    start = base or bases.of(flavour, driver_version)
    more = replace(
        start,
        arguments={**start.arguments, "KERNEL_VERSION": release},
        files={**start.files, **({"modules": modules} if modules else {})},
    )
    made = image.build(driver_version, STAGE, flavour, more)
    # The bases of tests have a tag of their own in the image's label; nodes ask without it.
    name = tag(release, driver_version, base.arguments.get("OS_TAG", flavour.os_tag) if base else flavour.os_tag)
    dockerd.client().images.get(made).tag(image.REPOSITORY_NAME, name)
    return f"{image.REPOSITORY_NAME}:{name}"


def tag(release: str, driver_version: str, os_tag: str) -> str:
    """Return the tag by which gpu-operator asks for it, as the program tells it (driverctr.userspace.tag)."""
    branch = driver_version.partition(".")[0]
    return f"{branch}-{release}-{os_tag}".replace("+", "_")
