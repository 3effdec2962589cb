"""The images there are, as data: each has a Dockerfile, and folders of its build context."""

from __future__ import annotations

from dataclasses import dataclass

# Values of DRIVER_SOURCE.
RUNFILE = "runfile"
PACKAGES = "packages"


@dataclass(frozen=True)
class Flavour:
    """One Dockerfile, and what is built of it without a choice of the user's.

    `folders` lie below images/, `places` in the build context, where they may be empty. `python` is the package of the
    test base, `origin` the DRIVER_SOURCE of the tests.
    """

    name: str
    folders: tuple[str, ...]
    python: str
    origin: str
    os_tag: str
    places: tuple[str, ...] = ("modules",)

    @property
    def dockerfile(self) -> str:
        """Its file at the top of the repository."""
        return f"Dockerfile.{self.name}"


DEBIAN = Flavour("debian", ("common", "debian"), "python3", PACKAGES, "debian12")
UBUNTU = Flavour("ubuntu", ("common", "ubuntu"), "python3.11", PACKAGES, "ubuntu22.04")
RHEL = Flavour("rhel", ("common", "rhel"), "python3.11", RUNFILE, "rhel9", ("modules", "repositories"))
FLAVOURS = {flavour.name: flavour for flavour in (DEBIAN, UBUNTU, RHEL)}
