"""Which packages each distribution has; one module and one registered subclass each."""

import importlib
import re
from abc import ABC, abstractmethod
from typing import ClassVar

from driverctr.errors import Code, DriverError
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
