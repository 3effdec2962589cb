"""How to call apt, with a state of its own, so that the image's own lists stay as they are."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.records import frozen
from driverctr.retry import retry
from driverctr.run import Result, Runner

ATTEMPTS = 3
FIRST_PAUSE = 5.0
"""Seconds before the second attempt."""
UPDATE_LIMIT = 300.0
DOWNLOAD_LIMIT = 600.0
UNPACK_LIMIT = 300.0
"""Seconds."""

CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Where a user, or the operator's certConfig, mounts certificates (update-ca-certificates(8))."""

NOT_THERE = re.compile(r"Unable to locate package|No packages found|has no installation candidate")
"""apt's words for what no further attempt will change."""


@frozen
class Apt:
    """apt below a scratch folder, with the sources of /etc/apt; `pause` waits between attempts."""

    runner: Runner
    scratch: Path
    pause: Callable[[float], object]
    log: Log
    certificates: Path = CERTIFICATES

    def fetch(self, package: str, companions: re.Pattern[str], into: Path) -> tuple[str, ...]:
        """Unpack a package, and those of its dependencies that `companions` matches, into a folder.

        Returns their names. Nothing is installed. Raises DriverError (packages-failed) with apt's own words.
        """
        self._prepare()
        if not self._knows(package):
            self._update()
        wanted = (package, *(name for name in self._dependencies(package) if companions.fullmatch(name)))
        self._unpack(self._download(wanted), into)
        return wanted

    def _prepare(self) -> None:
        for folder in ("lists/partial", "cache/archives/partial", "archives"):
            (self.scratch / folder).mkdir(parents=True, exist_ok=True)

    def _options(self) -> list[str]:
        """Lists and cache of our own; no translations; no sandbox user, who could not read our folder."""
        settings = {
            "Dir::State::Lists": self.scratch / "lists",
            "Dir::Cache": self.scratch / "cache",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _call(self, words: Sequence[str | Path], limit: float, cwd: Path | None = None) -> Result:
        result = self.runner.run([words[0], *self._options(), *words[1:]], limit=limit, check=False, cwd=cwd)
        if result.status != 0:
            raise DriverError(
                Code.PACKAGES_FAILED,
                f"`{' '.join(map(str, words))}` failed: {complaints(result)}",
                "Check the package sources in /etc/apt, the proxy variables and the network of this container",
            )
        return result

    def _knows(self, package: str) -> bool:
        shown = self.runner.run(["apt-cache", *self._options(), "show", package], check=False)
        return shown.status == 0 and bool(shown.stdout.strip())

    def _update(self) -> None:
        self._trust()
        self._retry(lambda: self._call(["apt-get", "-q", "update"], UPDATE_LIMIT))

    def _trust(self) -> None:
        """Have https trust the user's certificates too; where that fails apt will, so it is only said."""
        if not any(self.certificates.rglob("*.crt")):
            return
        result = self.runner.run(["update-ca-certificates"], limit=UPDATE_LIMIT, check=False)
        if result.status != 0:
            self.log.warning(f"the certificates in {self.certificates} could not be added: {result.words}")

    def _dependencies(self, package: str) -> list[str]:
        """Names a package depends on; a package that is not there is told by apt in the same words each time."""
        shown = self._call(["apt-cache", "show", "--no-all-versions", package], UPDATE_LIMIT).stdout
        found = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
        return [part.split()[0].split(":")[0] for part in found.group(1).split(",")] if found else []

    def _download(self, packages: Sequence[str]) -> list[Path]:
        folder = self.scratch / "archives"
        self._retry(lambda: self._call(["apt-get", "-q", "download", *packages], DOWNLOAD_LIMIT, folder))
        return sorted(folder.glob("*.deb"))

    def _unpack(self, archives: Sequence[Path], into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        for archive in archives:
            self.runner.run(["dpkg-deb", "--extract", archive, into], limit=UNPACK_LIMIT)
            archive.unlink()

    def _retry(self, act: Callable[[], Result]) -> None:
        """Try again, unless apt says that the package does not exist."""

        def attempt() -> DriverError | None:
            try:
                act()
            except DriverError as error:
                if NOT_THERE.search(error.message):
                    return error
                raise
            return None

        final = retry(attempt, attempts=ATTEMPTS, first_pause=FIRST_PAUSE, pause=self.pause, log=self.log)
        if final is not None:
            raise final


def complaints(result: Result) -> str:
    """apt's errors (E:) if it named any, else its last words."""
    errors = [line.strip() for line in result.stderr.splitlines() if line.startswith(("E:", "Err:"))]
    return "; ".join(errors[-5:]) or result.words
