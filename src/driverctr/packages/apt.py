"""How to call apt, with a state of its own: nothing is installed, and what the image's own apt and dpkg know stays."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from driverctr.addresses import without_credentials
from driverctr.distros import HeaderPackages
from driverctr.errors import Code, DriverError
from driverctr.files import read_text
from driverctr.log import Log
from driverctr.packages import DEFAULTS, Sources, aptsources, aptwords, credentials
from driverctr.packages.aptsources import Entry
from driverctr.packages.debs import Debs, Offer, choose, read_stanza, unpack
from driverctr.records import frozen
from driverctr.retry import retry
from driverctr.run import Result, Runner

ATTEMPTS = 3
FIRST_PAUSE = 5.0
"""Seconds before the second attempt."""
UPDATE_LIMIT = 300.0
DOWNLOAD_LIMIT = 600.0
"""Seconds."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
"""apt knows them in lower case only (apt-transport-http(1))."""

UNSIGNED = re.compile(r"\b(trusted|allow-\w+)\s*[=:]", re.IGNORECASE)

ALWAYS = {
    "Dir::Etc::SourceList": "/dev/null",
    "Acquire::Languages": "none",
    "Acquire::PDiffs": "false",
    "Acquire::Retries": "0",
    "Acquire::AllowInsecureRepositories": "false",
    "Acquire::AllowWeakRepositories": "false",
    "APT::Get::AllowUnauthenticated": "false",
    "APT::Get::List-Cleanup": "false",
    "APT::Sandbox::User": "root",
    "APT::Update::Error-Mode": "any",
}
"""Signatures are checked whatever else is set; we try again ourselves; a sandbox user could not read our folder."""


@frozen
class Place:
    """One place that apt is asked for packages: our folder for it, the entries in rounds, options of its own."""

    folder: Path
    rounds: Sequence[Sequence[Entry]]
    options: Mapping[str, str]

    @property
    def asked(self) -> Path:
        """The sources of the rounds so far."""
        return self.folder / "sources"

    def prepare(self) -> None:
        """Make the folders; an empty status: what is installed here is of no interest, and may be damaged or locked."""
        for name in ("lists/partial", "cache/archives/partial", "archives", "sources"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()


@frozen
class Apt:
    """apt below a scratch folder; `pause` waits between attempts, `version` is the packages' where that is known."""

    runner: Runner
    scratch: Path
    pause: Callable[[float], object]
    log: Log
    sources: Sources
    version: str = ""

    def fetch(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From the sources in /etc/apt, round by round, until one has them; raises DriverError."""
        listed = self.sources.root / DEFAULTS
        known = bool(read_text(listed))
        of_image = self.sources.default_files()
        files = list(aptsources.files_of(self.sources.root))
        if not self.sources.defaults:
            if not known:
                raise DriverError(
                    Code.HEADERS_MISSING,
                    f"{self.sources.reason}, and which repositories are the image's own is not told: {listed} is "
                    "missing or empty",
                )
            files = [file for file in files if file not in of_image]
        found = aptsources.read(files, of_image if known else files)
        if not found:
            why = "there is no" if self.sources.defaults else f"{self.sources.reason}, and there is no other"
            raise DriverError(Code.HEADERS_MISSING, f"{why} package source in /etc/apt")
        self._trust()
        return self._from(self._place("repositories", aptsources.rounds(found)), wanted, into)

    def from_folder(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From the user's folder: a repository in it is verified; packages that lie there are taken as they are."""
        folder = self.sources.root / self.sources.folder.relative_to("/")
        if found := list(local_entries(folder)):
            return self._from(self._place("folder", [found]), wanted, into)
        debs = Debs(folder, self.runner)
        chosen = debs.choose(wanted, self.version)
        self.log.info(f"the packages in {folder} bear no signature to be checked: they are trusted as your own")
        unpack(chosen.values(), into, self.runner)
        return tuple(chosen)

    def from_archive(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From ARCHIVE_URL, whose index may be past its date; raises DriverError, bad-setting where it is no source."""
        line = self.sources.archive.strip()
        line = line if line.startswith("deb ") else f"deb {line}"
        words = aptsources.ONE_LINE.fullmatch(line)
        shown = without_credentials(self.sources.archive)
        if words is None or "://" not in words["uri"]:
            raise DriverError(
                Code.BAD_SETTING,
                f"ARCHIVE_URL={shown!r} is no package source",
                "Give an address, a suite and components, such as https://snapshot.example/debian bookworm main, or "
                "one line of sources.list(5)",
            )
        if UNSIGNED.search(words["options"] or ""):
            raise DriverError(
                Code.BAD_SETTING,
                f"ARCHIVE_URL={shown!r} would have signatures unchecked",
                "Leave that option out, and mount the public key of the archive into /etc/apt/trusted.gpg.d",
            )
        self._trust()
        late = {"Acquire::Check-Valid-Until": "false"}
        return self._from(self._place("archive", [list(aptsources.of_lines(line))], late), wanted, into)

    def _place(self, name: str, rounds: Sequence[Sequence[Entry]], options: Mapping[str, str] | None = None) -> Place:
        return Place(self.scratch / name, rounds, options or {})

    def _from(self, place: Place, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """Ask round after round, until one has all that is wanted; then fetch and unpack that."""
        place.prepare()
        credentials.learn(self.sources.root)
        failures: list[DriverError] = []
        chosen: dict[str, str] | None = None
        for number in range(len(place.rounds)):
            self._ask(place, number, failures)
            if chosen := self._choose(place, wanted, self.version):
                break
        else:
            chosen = self._choose(place, wanted, "")
        if chosen is None:
            raise self._missing(place, wanted, failures)
        if self.version and chosen[wanted.package] != self.version:
            self.log.warning(f"{wanted.package} is there in version {chosen[wanted.package]}, not {self.version}")
        unpack(self._download(place, chosen), into, self.runner)
        return tuple(chosen)

    def _ask(self, place: Place, number: int, failures: list[DriverError]) -> None:
        """Fetch the index of one round; a repository that fails is no reason not to ask the others."""
        alone = place.folder / f"round-{number}"
        written = aptsources.write(place.rounds[number], alone)
        try:
            self._retry(lambda: self._call(place, ["apt-get", "-q", "update"], UPDATE_LIMIT, parts=alone))
        except DriverError as error:
            if error.code is Code.BAD_SETTING:
                raise DriverError(error.code, theirs(error.message, written), error.remedy) from error
            if error.code not in (Code.PACKAGES_FAILED, Code.PACKAGES_UNTRUSTED):
                raise
            self.log.warning(error.message, code=error.code.value)
            failures.append(error)
        aptsources.write(place.rounds[number], place.asked, f"{number}-")

    def _missing(self, place: Place, wanted: HeaderPackages, failures: Sequence[DriverError]) -> DriverError:
        """Why nothing can be fetched."""
        if failures:
            first = failures[0]
            others = f"; no other repository has {wanted.package}" if len(place.rounds) > 1 else ""
            return DriverError(first.code, f"{first.message}{others}", first.remedy)
        if self._offer(place, wanted.package) is None:
            return DriverError(Code.HEADERS_MISSING, f"there is no package {wanted.package}")
        return DriverError(Code.HEADERS_MISSING, f"{wanted.package} is there, and headers it depends on are not")

    def _choose(self, place: Place, wanted: HeaderPackages, version: str) -> dict[str, str] | None:
        """Versions of the package and of its headers, by name, or None where one is not in the index."""
        return choose(wanted, version, lambda name, exact: self._offer(place, name, exact))

    def _offer(self, place: Place, name: str, version: str = "") -> Offer | None:
        """What the index tells of a package."""
        words = ["apt-cache", *self._options(place, place.asked), "show", "--no-all-versions"]
        shown = self.runner.run([*words, f"{name}={version}" if version else name], limit=UPDATE_LIMIT, check=False)
        return read_stanza(shown.stdout) if shown.status == 0 else None

    def _download(self, place: Place, chosen: Mapping[str, str]) -> list[Path]:
        """Fetch packages; before a second attempt the index is fetched anew, since it may be newer than the pool."""
        folder = place.folder / "archives"
        words = ["apt-get", "-q", "download", *(f"{name}={version}" for name, version in chosen.items())]
        calls = iter([[words], *([["apt-get", "-q", "update"], words] for _ in range(1, ATTEMPTS))])

        def act() -> None:
            for call in next(calls):
                self._call(place, call, DOWNLOAD_LIMIT, cwd=folder)

        self._retry(act)
        return [file for file in sorted(folder.glob("*.deb")) if file.name.partition("_")[0] in chosen]

    def _call(
        self,
        place: Place,
        words: Sequence[str],
        limit: float,
        parts: Path | None = None,
        cwd: Path | None = None,
    ) -> Result:
        argv = [words[0], *self._options(place, parts or place.asked), *words[1:]]
        result = self.runner.run(argv, limit=limit, check=False, cwd=cwd, extra_env=self._proxies)
        if result.status != 0:
            raise aptwords.error_of(" ".join(words), result)
        return result

    def _options(self, place: Place, parts: Path) -> list[str]:
        folder = place.folder
        own = {
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::SourceParts": parts,
        }
        return [
            word for name, value in {**own, **ALWAYS, **place.options}.items() for word in ("-o", f"{name}={value}")
        ]

    @property
    def _proxies(self) -> dict[str, str]:
        given = self.runner.environment
        return {name.lower(): given[name] for name in PROXIES if given.get(name) and name.lower() not in given}

    def _trust(self) -> None:
        """Have https trust the user's certificates too; where that fails apt will, so it is only said."""
        place = self.sources.certificates
        folder = self.sources.root / place.folder.relative_to("/")
        if not any(folder.rglob("*.crt")):
            return
        result = self.runner.run(place.update, limit=UPDATE_LIMIT, check=False)
        if result.status != 0:
            self.log.warning(f"the certificates in {folder} could not be added: {result.words}")

    def _retry(self, act: Callable[[], object]) -> None:
        """Try again, unless apt says what no further attempt will change."""

        def attempt() -> DriverError | None:
            try:
                act()
            except DriverError as error:
                if not aptwords.may_pass(error):
                    return error
                raise
            return None

        final = retry(attempt, attempts=ATTEMPTS, first_pause=FIRST_PAUSE, pause=self.pause, log=self.log)
        if final is not None:
            raise final


def theirs(message: str, written: Mapping[Path, Path]) -> str:
    """apt's words about a file of ours, with the user's file that it was made of in its place."""
    for ours, origin in written.items():
        message = re.sub(
            rf"(line \d+ (in|of) source list |entry \d+ in list file )?{re.escape(str(ours))}", str(origin), message
        )
    return message


def local_entries(folder: Path) -> Iterator[Entry]:
    """The repository in a folder: a flat one (Release beside the packages) or one with dists/ and pool/.

    What lies in a suite is not one: many tools write a Release into each folder of a component too, which none signs.
    """
    address = f"file:{quote(str(folder))}"
    if has_release(folder):
        yield from aptsources.of_lines(f"deb {address} ./")
    suites = {found.parent for found in folder.glob("dists/**/*Release")}
    for dist in sorted(suite for suite in suites if suites.isdisjoint(suite.parents)):
        release = read_text(dist / "InRelease") or read_text(dist / "Release") or ""
        components = re.search(r"^Components:(.*)$", release, re.MULTILINE)
        listed = components[1].strip() if components else "main"
        yield from aptsources.of_lines(f"deb {address} {dist.relative_to(folder / 'dists')} {listed}")


def has_release(folder: Path) -> bool:
    """Whether a folder says of itself that it is a repository."""
    return any((folder / name).is_file() for name in ("InRelease", "Release"))
