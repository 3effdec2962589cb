"""The package sources of apt (sources.list(5)), taken apart so that no index is fetched before it is needed."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from driverctr.conceal import learn_text
from driverctr.files import entries, read_text
from driverctr.records import frozen, replace

ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>[^#]*)")
SOURCE_PACKAGES = re.compile(r"deb-src\s")
FIELD = re.compile(r"(?P<name>[\w-]+):(?P<value>.*(?:\n[ \t].*)*)")
PACKAGES_ONLY = "target=Packages"
"""No translations, no list of contents, nothing about applications, whatever else the image's apt is set to fetch."""

DISABLED = ("no", "false", "without", "off", "disable")
"""What apt takes for a no (StringToBool of its strutl.cc)."""


@frozen
class Entry:
    """One suite and component of one source, as a text that apt reads alone; `suffix` is the form it is written in."""

    text: str
    suffix: str
    suite: str = ""
    component: str = ""
    users: bool = False
    file: Path = Path("ARCHIVE_URL")

    @property
    def rank(self) -> int:
        """When it is asked: the user's first, then the small ones, the large index of the suite itself after them.

        What a suite is followed by (-updates, -security, -backports) holds the newest kernels in a small index; kernels
        are in no component but main, save those that only Ubuntu's universe has.
        """
        if self.users or not self.suite:
            return 0
        if self.component not in ("main", ""):
            return 3
        return 1 if "-" in self.suite or "/" in self.suite else 2


def files_of(root: Path) -> Iterator[Path]:
    """The files that apt reads its sources from."""
    yield root / "etc/apt/sources.list"
    yield from (path for path in entries(root / "etc/apt/sources.list.d") if path.suffix in (".list", ".sources"))


def read(files: Iterable[Path], of_image: Collection[Path]) -> list[Entry]:
    """All that is asked by some files; those not `of_image` are the user's. What cannot be read is left for apt."""
    found = []
    for file in files:
        learn_text(text := read_text(file) or "")
        users = file not in of_image
        taken = of_stanzas(text, users=users) if file.suffix == ".sources" else of_lines(text, users=users)
        found += [replace(entry, file=file) for entry in taken]
    return found


def of_lines(text: str, *, users: bool = False) -> Iterator[Entry]:
    """Entries in the one-line form; a line that is none is kept, so that apt says what is wrong with it."""
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#") or SOURCE_PACKAGES.match(line):
            continue
        if (found := ONE_LINE.match(line)) is None:
            yield Entry(line, ".list", users=users)
            continue
        options = " ".join([*(found["options"] or "").split(), PACKAGES_ONLY])
        head = f"deb [{options}] {found['uri']} {found['suite']}"
        for component in found["components"].split() or [""]:
            yield Entry(f"{head} {component}".strip(), ".list", found["suite"], component, users)


def of_stanzas(text: str, *, users: bool = False) -> Iterator[Entry]:
    """Entries in the deb822 form, with every other field as it was."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        fields = {found["name"].lower(): found["value"].strip() for found in FIELD.finditer(stanza)}
        if not stanza.strip() or fields.get("enabled", "yes").lower() in DISABLED:
            continue
        if not fields.get("suites") or not fields.get("types"):
            yield Entry(stanza, ".sources", users=users)
            continue
        if "deb" not in fields["types"].split():
            continue
        ours = ("types", "suites", "components", "targets")
        rest = [found[0] for found in FIELD.finditer(stanza) if found["name"].lower() not in ours]
        for suite in fields["suites"].split():
            for component in fields.get("components", "").split() or [""]:
                own = ["Types: deb", "Targets: Packages", f"Suites: {suite}"]
                own += [f"Components: {component}"] if component else []
                yield Entry("\n".join([*own, *rest]), ".sources", suite, component, users)


def rounds(found: Iterable[Entry]) -> list[list[Entry]]:
    """The entries in the order they are asked: what one round has, no later one is asked for."""
    ranked: dict[int, list[Entry]] = {}
    for entry in found:
        ranked.setdefault(entry.rank, []).append(entry)
    return [ranked[rank] for rank in sorted(ranked)]


def write(chosen: Sequence[Entry], folder: Path, prefix: str = "") -> dict[Path, Path]:
    """Write entries into a folder for Dir::Etc::SourceParts; returns the file that each of ours was taken from."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for number, entry in enumerate(chosen):
        file = folder / f"{prefix}{number:03}{entry.suffix}"
        file.write_text(entry.text + "\n")
        written[file] = entry.file
    return written
