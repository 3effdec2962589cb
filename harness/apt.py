"""Debian packages from the machine's own package sources, with apt state of our own.

Nothing here reads or changes the machine's package lists, and no archive's address is known here: it all comes
from the machine's apt configuration.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import cache, proc
from harness.errors import HarnessError

SUITE = "bookworm"
COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")
# Lists older than this (seconds) are fetched again; a kernel that left the archive is then no longer offered.
LISTS_MAX_AGE = 24 * 3600
SOURCES_VARIABLE = "DRIVERCTR_APT_SOURCES"


@dataclass(frozen=True)
class Source:
    """One package source: the fields of a deb line."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: str = ""

    def line(self) -> str:
        """Return it in the one-line format of sources.list(5)."""
        words = ["deb", f"[{self.options}]" if self.options else "", self.uri, self.suite, *self.components]
        return " ".join(word for word in words if word)


def sources(extra_suites: Iterable[str] = ()) -> str:
    """Return a sources.list of Debian 12 with all components.

    From the file named by DRIVERCTR_APT_SOURCES, else from the machine's own apt configuration, else from Docker's
    Debian image. `extra_suites` are suffixes of the suite, such as "backports", taken from where the main suite lies.
    Raises HarnessError if there are none.
    """
    chosen = os.environ.get(SOURCES_VARIABLE)
    if chosen:
        found = of_suite(_one_line(Path(chosen).read_text()))
        if not found:
            raise HarnessError(f"{SOURCES_VARIABLE}={chosen} has no line for {SUITE}", "Give it Debian 12's sources")
    else:
        found = configured() or _of_image()
    base = [s for s in found if s.suite == SUITE]
    found += [replace(s, suite=f"{SUITE}-{extra}") for s in base for extra in extra_suites]
    return "\n".join(dict.fromkeys(s.line() for s in found)) + "\n"


def configured(root: Path = Path("/")) -> list[Source]:
    """Return what a system's own apt configuration knows of Debian 12; empty on any other distribution."""
    return of_suite(_configured(root))


def of_suite(found: Iterable[Source]) -> list[Source]:
    """Return the sources of Debian 12 itself, with all components: another vendor's archive stays out."""
    return [replace(s, components=COMPONENTS) for s in found if s.suite == SUITE or s.suite.startswith(f"{SUITE}-")]


def _of_image() -> list[Source]:
    from harness import foreign

    place = foreign.root()
    return [replace(s, options=s.options.replace("=/", f"={place}/")) for s in configured(place)]


def _configured(root: Path) -> Iterable[Source]:
    etc = root / "etc/apt"
    listed = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    for path in listed:
        if path.is_file():
            yield from _one_line(path.read_text())
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        yield from _deb822(path.read_text())


def _one_line(text: str) -> list[Source]:
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match:
            options, uri, suite, components = match.groups()
            found.append(Source(uri, suite, tuple(components.split()), (options or "").strip()))
    return found


def _deb822(text: str) -> Iterable[Source]:
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        options = " ".join(
            f"{name}={fields[name]}"
            for name in ("signed-by", "trusted")
            # A key written into the stanza itself has no one-line form.
            if fields.get(name, "") and "\n" not in fields[name]
        )
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, tuple(fields.get("components", "").split()), options)


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    last = ""
    for line in stanza.splitlines():
        if line[:1].isspace() and last:
            fields[last] += "\n" + line.strip()
            continue
        name, sep, value = line.partition(":")
        if sep:
            last = name.strip().lower()
            fields[last] = value.strip()
    return fields


def options(text: str) -> list[str]:
    """Return the apt options that use this sources.list with state of our own; fetches lists when too old.

    Raises HarnessError if they cannot be fetched and there are none.
    """
    state = _state(text)
    with cache.lock(f"apt-{state.name}"):
        stamp = state / "updated"
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_MAX_AGE:
            try:
                proc.run(["apt-get", *_base_options(state), "update", "--error-on=any"], timeout=900)
            except HarnessError:
                # Offline with usable lists is fine: what is in the cache needs no archive.
                if not stamp.exists():
                    raise
            stamp.touch()
    return _base_options(state)


def _state(text: str) -> Path:
    state = cache.root() / "apt" / cache.key([text])
    for folder in ("lists/partial", "archives/partial", "empty"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    listed = state / "sources.list"
    if not listed.exists():
        listed.write_text(text)
    return state


def _base_options(state: Path) -> list[str]:
    settings = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": state / "empty",
        "Dir::Etc::Preferences": state / "preferences",
        "Dir::Etc::PreferencesParts": state / "empty",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def names(prefix: str, text: str) -> list[str]:
    """Return the names of all packages offered that begin with the prefix."""
    return sorted(proc.run(["apt-cache", *options(text), "pkgnames", prefix]).split())


def versions(packages: Sequence[str], text: str) -> dict[str, str]:
    """Return the newest version offered of each package; what is not offered is absent."""
    shown = proc.run(["apt-cache", *options(text), "show", "--no-all-versions", *packages]) if packages else ""
    found: dict[str, str] = {}
    for stanza in shown.split("\n\n"):
        fields = _fields(stanza)
        if "package" in fields:
            found[fields["package"]] = fields["version"]
    return found


def download(packages: Sequence[str], dest: Path, text: str) -> list[Path]:
    """Fetch packages (not what they depend on) into a folder and return the files, in the order asked.

    A package may be given as name=version. Raises HarnessError if one is not to be had.
    """
    dest.mkdir(parents=True, exist_ok=True)
    proc.run(["apt-get", *options(text), "download", *packages], cwd=dest, timeout=1800)
    return [_fetched(dest, package) for package in packages]


def _fetched(dest: Path, package: str) -> Path:
    name, _, version = package.partition("=")
    wanted = f"{name}_{version.replace(':', '%3a')}_*.deb" if version else f"{name}_*.deb"
    found = sorted(dest.glob(wanted))
    if not found:
        raise HarnessError(f"apt-get download brought no {wanted} into {dest}")
    return found[-1]
