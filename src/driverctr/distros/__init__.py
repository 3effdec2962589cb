"""Which packages each distribution has; one module and one registered subclass each."""

import importlib
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from driverctr.errors import Code, DriverError
from driverctr.files import read_text
from driverctr.records import frozen

KNOWN = ("debian",)
"""Distributions we have a module for, by their ID in os-release(5)."""


@frozen
class HeaderPackages:
    """The package that holds a kernel's headers, and which of its dependencies are headers too."""

    package: str
    companions: re.Pattern[str]


class Distro(ABC):
    """What a distribution calls its packages; knows nothing of how they are fetched."""

    registry: ClassVar[dict[str, type["Distro"]]] = {}
    package_tool: ClassVar[str]

    def __init_subclass__(cls, *, name: str) -> None:
        """Enter the distribution under its ID."""
        super().__init_subclass__()
        cls.registry[name] = cls

    @abstractmethod
    def header_packages(self, release: str) -> HeaderPackages:
        """The packages with the headers of a kernel release."""

    @abstractmethod
    def compiler_package(self, compiler: str) -> str:
        """The package that brings a compiler, named as on the command line (gcc-12)."""


def by_name(name: str) -> Distro:
    """The distribution with this ID; raises DriverError (bad-setting) where we have none."""
    if name not in KNOWN:
        raise DriverError(
            Code.BAD_SETTING,
            f"the distribution {name!r} is not known",
            f"Known are: {', '.join(KNOWN)}",
        )
    importlib.import_module(f"driverctr.distros.{name}")
    return Distro.registry[name]()


def detect(root: Path = Path("/")) -> Distro:
    """The distribution of the system below `root`, by ID and ID_LIKE of os-release(5).

    Raises DriverError (bad-setting) where neither is known.
    """
    text = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release") or ""
    fields = dict(re.findall(r"^(ID|ID_LIKE)=\"?([^\"\n]*)\"?$", text, re.MULTILINE))
    if not fields:
        raise DriverError(
            Code.BAD_SETTING,
            f"{root / 'etc/os-release'} is missing or names no distribution (ID)",
            "Use the project's own image, whose description names it",
        )
    names = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    return by_name(next((name for name in names if name in KNOWN), names[0]))
