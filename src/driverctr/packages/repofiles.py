"""The repository files that dnf is given: the user's, the image's own, and those of a host's entitlement."""

import configparser
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from driverctr.conceal import learn_text
from driverctr.files import read_text
from driverctr.log import Log
from driverctr.packages import Sources
from driverctr.records import frozen

FOLDERS = ("etc/yum.repos.d", "etc/yum/repos.d", "etc/distro.repos.d")
"""Where dnf looks for repository files (dnf.conf(5), reposdir)."""

VARIABLES = ("etc/dnf/vars", "etc/yum/vars")
"""Where variables of repository files lie, one a file (dnf.conf(5), varsdir)."""

KEYS = "etc/pki/rpm-gpg"
"""Where a distribution puts its public keys; those of a repository that names none."""

ENTITLED = "redhat.repo"
"""The file that subscription-manager writes, of repositories that need an entitlement."""

SECRETS = (
    ("/etc/pki/entitlement/", "/run/secrets/etc-pki-entitlement/"),
    ("/etc/rhsm/", "/run/secrets/rhsm/"),
)
"""Folders that redhat.repo names on a host, and where a container is given them (reference C.1)."""


@frozen
class Repository:
    """One section of a repository file; `own`: the user brought it, not the image and not an entitlement."""

    name: str
    enabled: bool
    checked: bool
    keys: tuple[str, ...]
    own: bool


@frozen
class RepositoryFiles:
    """The repository files to use, copied into a folder."""

    folder: Path
    repositories: tuple[Repository, ...]

    def used(self, names: Sequence[str]) -> tuple[Repository, ...]:
        """Those named and the user's own, as far as they are there; where none of those named is, all enabled ones."""
        named = [one for one in self.repositories if any(fnmatchcase(one.name, name) for name in names)]
        if not named:
            return tuple(one for one in self.repositories if one.enabled)
        return (*named, *(one for one in self.repositories if one.own and one.enabled and one not in named))


def gather(sources: Sources, folder: Path, log: Log) -> RepositoryFiles:
    """Copy the repository files that the user wants used into an empty folder, and read them."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Repository] = {}
    defaults = sources.default_files()
    for file in repository_files(sources.root):
        shipped = file in defaults
        if shipped and not sources.defaults:
            continue
        learn_text(text := read_text(file) or "")
        if file.name == ENTITLED:
            text = entitled(text, sources.root)
        own = not shipped and file.name != ENTITLED
        try:
            sections = list(read_sections(text, own))
        except configparser.Error as error:
            log.warning(f"{file} is left out, it is no repository file: {' '.join(str(error).split())}")
            continue
        (folder / file.name).write_text(text)
        found |= {one.name: one for one in sections}
    return RepositoryFiles(folder, tuple(found.values()))


def repository_files(root: Path) -> Iterator[Path]:
    """Every repository file; of the entitlement's, the one that is mounted where the image has none or an empty one."""
    files = [file for name in FOLDERS for file in sorted((root / name).glob("*.repo"))]
    entitlement = [file for file in files if file.name == ENTITLED and (read_text(file) or "").count("[")]
    yield from (file for file in files if file.name != ENTITLED)
    mounted = root / "run/secrets" / ENTITLED
    yield from entitlement[:1] or ([mounted] if mounted.is_file() else [])


def entitled(text: str, root: Path) -> str:
    """An entitlement's repositories, with certificates and keys where this container has them."""
    for there, here in SECRETS:
        own, mounted = (root / place.strip("/") for place in (there, here))
        if mounted.is_dir() and not (own.is_dir() and any(own.iterdir())):
            text = text.replace(there, here)
    return text


def read_sections(text: str, own: bool) -> Iterator[Repository]:
    """The repositories of a file, enabled and to be checked unless they say no; raises configparser.Error."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    for name in parser.sections():
        section = parser[name]
        yield Repository(
            name,
            enabled=_truth(section.get("enabled", "1")),
            checked=_truth(section.get("gpgcheck", "1")),
            keys=tuple(re.split(r"[\s,]+", section.get("gpgkey", "").strip())) if section.get("gpgkey") else (),
            own=own,
        )


def _truth(word: str) -> bool:
    return word.strip().lower() not in ("0", "no", "false", "off")


def filled(text: str, releasever: str, root: Path) -> str:
    """A text of a repository file with its variables filled in ($releasever, $basearch, those of vars folders)."""
    machine = os.uname().machine
    major, _, minor = releasever.partition(".")
    values = {"releasever": releasever, "releasever_major": major, "releasever_minor": minor}
    values |= {"basearch": machine, "arch": machine}
    for name in VARIABLES:
        for file in sorted((root / name).glob("*")):
            values.setdefault(file.name, (read_text(file) or "").strip())
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda hit: values.get(hit[1] or hit[2], hit[0]), text)


def key_files(root: Path) -> tuple[Path, ...]:
    """The public keys of the distribution."""
    return tuple(sorted(file for file in (root / KEYS).glob("*") if file.is_file()))
