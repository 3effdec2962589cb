"""Signed repositories of rpm packages made of file trees, by the real rpmbuild, rpmsign, createrepo_c and gpg.

They run in a container of harness/rpmbase: the machine needs none of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import containers, rpmbase

LIMIT_S = 900
PUBLIC_KEY = "RPM-GPG-KEY"

NEW_KEY = """
gpg --quiet --batch --passphrase '' --quick-generate-key "$1" rsa2048 sign never
gpg --batch --armor --export "$1" >"$GNUPGHOME/RPM-GPG-KEY"
"""

# Nothing of a package is changed, stripped or looked into on its way.
BUILD = """
for spec in /specs/*.spec; do
    rpmbuild -bb --quiet --target "$1" --define '_rpmdir /out' --define '_topdir /tmp/rpmbuild' \
        --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' --define '_build_id_links none' \
        --define '__os_install_post %{nil}' --define 'debug_package %{nil}' \
        --define '_binary_payload w3.zstdio' "$spec"
done
"""
SIGN = """
rpmsign --define "_gpg_name $1" --define "__gpg $(command -v gpg)" --addsign /out/*.rpm >/dev/null
"""
INDEX = """
createrepo_c --quiet --no-database /out
"""
SIGN_INDEX = """
gpg --batch --yes --armor --local-user "$1" --detach-sign /out/repodata/repomd.xml
"""


@dataclass(frozen=True)
class Package:
    """A package of the files below `tree`, which is a root: its folders are not the package's own unless empty.

    `post` is a script that runs when it is installed.
    """

    name: str
    version: str
    release: str
    tree: Path
    architecture: str = "x86_64"
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    post: str = ""

    @property
    def file_name(self) -> str:
        """Return the name of its file."""
        return f"{self.name}-{self.version}-{self.release}.{self.architecture}.rpm"


@dataclass(frozen=True)
class Key:
    """A signing key: `home` is gpg's folder, `name` the user's name in it."""

    home: Path
    name: str

    @property
    def public(self) -> Path:
        """Return the file with the public key, as rpm reads it."""
        return self.home / PUBLIC_KEY


def new_key(home: Path, name: str = "driverctr tests") -> Key:
    """Make a key in a folder that is not there yet. Raises HarnessError."""
    home.mkdir(parents=True, mode=0o700)
    _run(NEW_KEY, [name], {home: "/key"})
    return Key(home, name)


def make(to: Path, packages: Sequence[Package], key: Key | None) -> None:
    """Fill a folder with a repository: the packages, and an index; both are signed if there is a key.

    All packages are of one architecture, or noarch. Raises HarnessError with the tools' own words.
    """
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        mounts = {to: "/out", work: "/specs"}
        for number, package in enumerate(packages):
            (work / f"{number}.spec").write_text(_spec(package, f"/tree{number}"))
            mounts[package.tree] = f"/tree{number}"
        target = next((p.architecture for p in packages if p.architecture != "noarch"), "noarch")
        _run(BUILD, [target], mounts)
    if key is not None:
        _run(SIGN, [key.name], {to: "/out", key.home: "/key"})
    index(to, key)


def index(to: Path, key: Key | None) -> None:
    """Write the index of a folder of packages anew; signed if there is a key. Raises HarnessError."""
    _run(INDEX, [], {to: "/out"})
    if key is not None:
        _run(SIGN_INDEX, [key.name], {to: "/out", key.home: "/key"})


def _run(script: str, arguments: Sequence[str], mounts: dict[Path, str]) -> None:
    volumes = [f"{here.resolve()}:{there}" for here, there in mounts.items()]
    argv = ["sh", "-euc", script, "sh", *arguments]
    containers.output(rpmbase.image(), argv, LIMIT_S, volumes=volumes, environment=["GNUPGHOME=/key"])


def _spec(package: Package, tree: str) -> str:
    lines = [
        f"Name: {package.name}",
        f"Version: {package.version}",
        f"Release: {package.release}",
        *(["BuildArch: noarch"] if package.architecture == "noarch" else []),
        "Summary: A package of driverctr's tests",
        "License: Apache-2.0",
        "AutoReqProv: no",
        *(f"Requires: {name}" for name in package.requires),
        *(f"Provides: {name}" for name in package.provides),
        "%description",
        "Files of a test.",
        "%install",
        f"mkdir -p %{{buildroot}} && cp -a {tree}/. %{{buildroot}}/",
        "%files",
        *_files(package.tree),
        *(["%post", package.post] if package.post else []),
    ]
    return "\n".join(lines) + "\n"


def _files(tree: Path) -> list[str]:
    found = []
    for folder, folders, files in os.walk(tree):
        inside = "/" + str(Path(folder).relative_to(tree)) + "/"
        inside = inside.replace("/./", "/")
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [f'"{inside}{name}"' for name in (*files, *links)]
        if not files and not folders and folder != str(tree):
            found.append(f'%dir "{inside[:-1]}"')
    return found
