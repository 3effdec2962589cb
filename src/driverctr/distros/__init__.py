"""What each distribution calls its kernels, packages and repositories; one module and one registered subclass each."""

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from driverctr.errors import Code, DriverError
from driverctr.facts.osrelease import OsRelease
from driverctr.records import frozen


class Tool(StrEnum):
    """The package tools."""

    APT = "apt"
    DNF = "dnf"


@frozen
class HeaderPackages:
    """The package that holds a kernel's headers, and which of its dependencies are headers too."""

    package: str
    companions: re.Pattern[str]


@frozen
class KernelIdentity:
    """What a kernel's release and version tell of where it came from; an empty text stands for what they do not tell.

    `flavour` is the distribution's word (generic, cloud-amd64, 64k; "" for RHEL's plain one), `abi` the number by which
    Debian and Ubuntu tell builds apart, `minor` RHEL's X.Y, `package_version` the version of the package the kernel
    came in, `architecture` as RHEL writes it, `source` where the rule that told all this is written down.
    """

    release: str
    flavour: str = ""
    abi: str = ""
    minor: str = ""
    package_version: str = ""
    architecture: str = ""
    source: str = ""


@frozen
class Rung:
    """One attempt: the releasever to ask with ("": the tool's own), and repositories to enable where there are such.

    Their names may hold a `*`.
    """

    releasever: str
    enable: tuple[str, ...] = ()


@frozen
class Repositories:
    """Where a kernel's packages may be: `ladder` is climbed until one rung has them (dnf), one empty rung for apt.

    `pro_service` is the service of Ubuntu Pro that has this kernel, "" where it is in the plain archive.
    """

    ladder: tuple[Rung, ...] = (Rung(""),)
    pro_service: str = ""

    @property
    def releasevers(self) -> tuple[str, ...]:
        """Each releasever once, in the order asked."""
        return tuple(dict.fromkeys(rung.releasever for rung in self.ladder))


@frozen
class CertificatePlace:
    """Where a user mounts certificates, what makes them known, and whole bundles mounted over the distribution's own.

    `folder` holds single certificates, `bundles` are folders whose files are taken as they are.
    """

    folder: Path
    update: tuple[str, ...]
    bundles: tuple[Path, ...] = ()


class Distro(ABC):
    """What a distribution calls its packages; knows nothing of how they are fetched.

    `name` is its ID, `kernels` that of the distribution whose kernels it runs: a respin that keeps its parent's kernels
    is served by the parent's packages, a rebuild that compiles its own is not.
    """

    registry: ClassVar[dict[str, type["Distro"]]] = {}
    name: ClassVar[str]
    tool: ClassVar[Tool]
    certificates: ClassVar[CertificatePlace]
    kernels: ClassVar[str]

    def __init_subclass__(cls, *, name: str) -> None:
        """Enter the distribution under its ID."""
        super().__init_subclass__()
        cls.name = name
        cls.registry[name] = cls

    def __init__(self, release: OsRelease) -> None:
        """Keep which release of the distribution this is."""
        self.release = release

    @abstractmethod
    def identify(self, release: str, version: str = "") -> KernelIdentity:
        """What `uname -r` and `uname -v` tell of a kernel of this distribution."""

    @abstractmethod
    def header_packages(self, release: str) -> HeaderPackages:
        """The packages with the headers of a kernel release."""

    @abstractmethod
    def module_packages(self, release: str) -> tuple[str, ...]:
        """The packages with the kernel's own modules, the likeliest first."""

    @abstractmethod
    def compiler_package(self, cc_version_text: str) -> str:
        """The package that brings the compiler of a kernel's CONFIG_CC_VERSION_TEXT."""

    def repositories(self, identity: KernelIdentity, *, releasever: str = "", openshift: str = "") -> Repositories:
        """Where the packages of a kernel may be; `releasever` and `openshift` are the user's own words for RHEL."""
        return Repositories()

    @property
    def line(self) -> str:
        """What of the release decides which kernels it has: two that differ have none in common; "" is not known."""
        return self.release.version_id if self.release.id == self.name else ""

    @property
    def tag(self) -> str:
        """As image tags call the release: ubuntu22.04, debian12."""
        return self.release.id + self.release.version_id

    def describe_mismatch(self, host: OsRelease | None) -> str:
        """Why this image's packages cannot have the host's kernel; "" where they may, or the host is not known."""
        if host is None:
            return ""
        kind = find(host)
        if kind is None or kind.kernels != self.kernels:
            return f"the host is {host}, whose kernels are not among the packages of {self.release}, as this image is"
        theirs = kind(host).line
        if self.line and theirs and self.line != theirs:
            return f"the host is {host}, and the packages of this image are those of {self.release}"
        return ""


def known() -> tuple[str, ...]:
    """IDs of the distributions that have a module here."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__"))


def find(release: OsRelease) -> type[Distro] | None:
    """The class for a release, by its ID, else by the first of ID_LIKE that is known."""
    return next(_classes((release.id, *release.id_like)), None)


def of(release: OsRelease) -> Distro:
    """The distribution of a release, its own or the one it says it is like; raises DriverError (bad-setting)."""
    if found := find(release):
        return found(release)
    raise DriverError(
        Code.BAD_SETTING,
        f"the distribution of this image is not known: ID={release.id}, ID_LIKE={' '.join(release.id_like) or 'empty'}",
        f"Use an image built on one of {', '.join(known())}, or on one whose os-release names such a one in ID_LIKE",
    )


def _classes(names: tuple[str, ...]) -> Iterator[type[Distro]]:
    for name in names:
        if name in known():
            importlib.import_module(f"{__name__}.{name}")
            yield Distro.registry[name]
