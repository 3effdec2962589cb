"""How to call each package tool, and which places it may fetch from."""

from pathlib import Path
from typing import Protocol

from driverctr.distros import CertificatePlace, HeaderPackages
from driverctr.facts import mounttable
from driverctr.files import read_text
from driverctr.records import frozen

DEFAULT_FOLDER = Path("/drivers/packages")
"""Where a user mounts packages."""

DEFAULTS = Path("usr/share/driverctr/default-repositories")
"""The image's own repository files, one absolute path a line."""


@frozen
class Sources:
    """Where packages may come from, as the user wants it.

    `defaults`: the repositories that the image brings, beside the user's; `reason` is why not, where they are left out.
    `folder` is the user's folder of packages, or with a repository in it; `archive` the address of old packages, in the
    package tool's own form ("": none).
    """

    certificates: CertificatePlace
    defaults: bool = True
    folder: Path = DEFAULT_FOLDER
    archive: str = ""
    reason: str = "DEFAULT_REPOSITORIES=false"
    root: Path = Path("/")

    def default_files(self) -> tuple[Path, ...]:
        """The repository files that the image brought, below `root`; none where it does not tell.

        One over which something is mounted, or over a folder it is in, is the user's.
        """
        list_of_them = self.root / DEFAULTS
        listed = (read_text(list_of_them) or "").splitlines()
        files = [self.root / line.strip().lstrip("/") for line in listed if line.strip().startswith("/")]
        try:
            mounts = mounttable.read(self.root) if files else ()
        except OSError:  # then nothing can be told to be mounted there
            mounts = ()
        images = mounttable.visible(mounts, list_of_them)
        return tuple(file for file in files if mounttable.visible(mounts, file) == images)


class PackageTool(Protocol):
    """Fetches packages, checks their signatures, and unpacks them into a folder; nothing is installed.

    Each way returns the names of what was unpacked: the package, and those of its dependencies that are headers too.
    Each raises DriverError with the tool's own words: headers-missing where the place has no such package,
    packages-untrusted where a signature is missing or wrong, packages-failed for anything else.
    """

    def fetch(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From the repositories: the user's, and the image's own unless they are switched off."""
        ...

    def from_folder(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From `Sources.folder`, with no network: packages that lie there, or a repository."""
        ...

    def from_archive(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From `Sources.archive`, whose index may be past its date; signatures are checked all the same."""
        ...
