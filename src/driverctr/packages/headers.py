"""The headers of a kernel release, by the distribution's names and its package tool."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from driverctr.distros import Distro
from driverctr.log import Log
from driverctr.packages.apt import Apt
from driverctr.run import Runner


@dataclass(frozen=True)
class PackagedHeaders:
    """Fetches headers into a folder; installs nothing."""

    distro: Distro
    runner: Runner
    log: Log
    pause: Callable[[float], object]
    source_list: Path | None = None

    def __call__(self, release: str, into: Path) -> tuple[str, ...]:
        """Unpack the header packages of a release below `into` and return their names.

        The tool's own files lie in a folder beside it. Raises DriverError (packages-failed).
        """
        wanted = self.distro.header_packages(release)
        apt = Apt(self.runner, into.with_name(f"{into.name}.apt"), self.pause, self.log, self.source_list)
        return apt.fetch(wanted.package, wanted.companions, into)
