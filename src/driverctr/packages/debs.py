"""Packages as files (deb(5)): what they say of themselves, which of a folder is wanted, what is in them."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from driverctr.distros import HeaderPackages
from driverctr.errors import Code, DriverError
from driverctr.records import frozen
from driverctr.run import Result, Runner

UNPACK_LIMIT = 300.0
"""Seconds."""

FIELDS = ("Package", "Version", "Architecture", "Depends")

DEPENDENCY = re.compile(r"\s*(?P<name>[^\s:(|]+)(?::\w+)?\s*(?:\((?P<how>[<>=]+)\s*(?P<version>[^)\s]+)\))?")
"""One of the Depends field, its first alternative (deb-control(5))."""


@frozen
class Offer:
    """A package as an index or its file tells of it; `depends` are names, each with the exact version or ""."""

    name: str
    version: str
    architecture: str
    depends: tuple[tuple[str, str], ...]

    def fits(self, native: str) -> bool:
        """Whether it can be used on this architecture."""
        return self.architecture in (native, "all")


def read_stanza(text: str) -> Offer | None:
    """The first package that a text in the form of a control file tells of, if there is one."""
    fields = dict(re.findall(r"^(\w[\w-]*): *(.*)$", text.partition("\n\n")[0], re.MULTILINE))
    if "Package" not in fields:
        return None
    found = [DEPENDENCY.match(part) for part in fields.get("Depends", "").split(",") if part.strip()]
    depends = [(each["name"], each["version"] if each["how"] == "=" else "") for each in found if each]
    return Offer(fields["Package"], fields.get("Version", ""), fields.get("Architecture", ""), tuple(depends))


def choose(wanted: HeaderPackages, version: str, offer: Callable[[str, str], Offer | None]) -> dict[str, str] | None:
    """Versions of a package and of those it depends on that are headers, by name; None where one is not offered.

    `offer` tells of a package by name and exact version ("": any).
    """
    chosen: dict[str, str] = {}
    pending = [(wanted.package, version)]
    while pending:
        name, exact = pending.pop(0)
        if name in chosen:
            continue
        if (found := offer(name, exact)) is None:
            return None
        chosen[name] = found.version
        pending += [each for each in found.depends if wanted.companions.fullmatch(each[0])]
    return chosen


@frozen
class Debs:
    """The packages that lie in a folder, at any depth."""

    folder: Path
    runner: Runner

    def choose(self, wanted: HeaderPackages, version: str) -> dict[str, Path]:
        """The files of a package and of the headers it depends on, by name.

        Raises DriverError: headers-missing where one is not there, packages-failed where a file cannot be read.
        """
        files = sorted(self.folder.rglob("*.deb"))
        if not files:
            raise DriverError(Code.HEADERS_MISSING, f"there is no *.deb and no repository in {self.folder}")
        native = self.runner.run(["dpkg", "--print-architecture"]).stdout.strip()
        chosen: dict[str, Path] = {}

        def offer(name: str, exact: str) -> Offer:
            chosen[name], told = self._find(files, name, exact, native)
            return told

        choose(wanted, version, offer)
        return chosen

    def _find(self, files: list[Path], name: str, version: str, native: str) -> tuple[Path, Offer]:
        """The file of a package: of that version, else the newest."""
        named = [file for file in files if file.name.partition("_")[0] == name]
        told = [(file, self._read(file) if named else self._peek(file)) for file in named or files]
        fits = [(file, each) for file, each in told if each and each.name == name and each.fits(native)]
        if not fits:
            raise DriverError(
                Code.HEADERS_MISSING, f"there is no {name} for {native} among the packages in {self.folder}"
            )
        exact = [each for each in fits if each[1].version == version]
        best = (exact or fits)[0]
        for each in (exact or fits)[1:]:
            words = ["dpkg", "--compare-versions", each[1].version, "gt", best[1].version]
            best = each if self.runner.run(words, check=False).status == 0 else best
        return best

    def _read(self, file: Path) -> Offer:
        if (offer := self._peek(file)) is None:
            raise damaged(file, self.runner.run(["dpkg-deb", "--field", file], check=False))
        return offer

    def _peek(self, file: Path) -> Offer | None:
        """What a package says of itself; None where it is damaged."""
        told = self.runner.run(["dpkg-deb", "--field", file, *FIELDS], check=False)
        return read_stanza(told.stdout) if told.status == 0 else None


def unpack(files: Iterable[Path], into: Path, runner: Runner) -> None:
    """Put what is in packages below a folder; raises DriverError (packages-failed, no-space)."""
    into.mkdir(parents=True, exist_ok=True)
    for file in files:
        result = runner.run(["dpkg-deb", "--extract", file, into], limit=UNPACK_LIMIT, check=False)
        if result.status != 0:
            raise damaged(file, result)


def damaged(file: Path, result: Result) -> DriverError:
    """A package that dpkg-deb cannot use, or that finds no room."""
    if "No space left on device" in result.stderr:
        return DriverError(Code.NO_SPACE, f"{file} cannot be unpacked: {result.words}", "Free 1 GB in /var/tmp")
    return DriverError(Code.PACKAGES_FAILED, f"{file} is damaged: {result.words}", "Put it there, or fetch it, anew")
