"""An apt that knows packages once its index was fetched, and fails in real apt's words (apt 2.6.1)."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from driverctr.distros import CertificatePlace, HeaderPackages
from driverctr.log import Log
from driverctr.packages import Sources
from driverctr.packages.apt import Apt
from driverctr.run import Runner
from tests.unit.conftest import FakeBin, make_tree

PACKAGE = "linux-headers-6.1.0-56-amd64"
COMMON = "linux-headers-6.1.0-56-common"
KBUILD = "linux-kbuild-6.1"
VERSION = "6.1.192-2"
DEPENDS = f"{COMMON} (= {VERSION}), {KBUILD} (>= {VERSION}), linux-compiler-gcc-12-x86 | gcc"
NAMES = (PACKAGE, COMMON, KBUILD)
HEADERS = HeaderPackages(PACKAGE, re.compile(r"linux-(headers-.+-common(-rt)?|kbuild-.+)"))
CERTIFICATES = CertificatePlace(Path("/usr/local/share/ca-certificates"), ("update-ca-certificates",))
REPOSITORY = "http://mirror.example/debian stable"
SOURCES = """deb http://mirror.example/debian stable main universe # a comment
deb-src http://mirror.example/debian stable main
deb http://mirror.example/debian stable-updates main
deb http://mirror.example/security stable-security main contrib
"""


@pytest.fixture
def pauses() -> list[float]:
    """How long was waited between attempts."""
    return []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The image's own sources, which it lists, and none of a user's."""
    folder = tmp_path / "root"
    make_tree(
        folder,
        {
            "etc/apt/sources.list": SOURCES,
            "etc/apt/sources.list.d": None,
            "usr/share/driverctr/default-repositories": "/etc/apt/sources.list\n",
        },
    )
    return folder


@pytest.fixture
def apt(tmp_path: Path, root: Path, runner: Runner, log: Log, pauses: list[float]) -> Apt:
    """apt with a scratch folder."""
    return Apt(runner, tmp_path / "apt", pauses.append, log, Sources(CERTIFICATES, root=root))


@pytest.fixture
def add(fake_bin: FakeBin, tmp_path: Path) -> Callable[..., None]:
    """Have a fake apt that behaves as told."""
    return lambda **how: add_apt(fake_bin, tmp_path, **how)


def words(fake_bin: FakeBin) -> list[str]:
    """The calls without apt's options."""
    return [re.sub(r" -o \S+", "", call) for call in fake_bin.calls]


def add_apt(fake_bin: FakeBin, scratch: Path, *, has: str = "*", update: str = "", download: str = "") -> None:
    """A source whose text fits the shell pattern `has` offers the packages.

    `update` and `download` are shell texts run in place of a success.
    """
    options = f"""
for word; do
    case $word in
    Dir::Etc::SourceParts=*) parts=${{word#*=}} ;;
    esac
done
offers() {{ case "$(/bin/cat "$parts"/* 2>/dev/null)" in {has}) [ -e {scratch}/updated ] ;; *) false ;; esac; }}
"""
    stanza = f"printf 'Package: %s\\nVersion: {VERSION}\\nArchitecture: amd64\\n' \"${{name%%=*}}\""
    fake_bin.add(
        "apt-cache",
        f"""{options}
for name; do :; done
case $name in *=*) case $name in *={VERSION}) ;; *) exit 100 ;; esac ;; esac
offers || {{ echo 'E: No packages found' >&2; exit 100; }}
{stanza}
case $name in {PACKAGE}*) echo 'Depends: {DEPENDS}' ;; esac
""",
    )
    fetch = 'while [ "$1" != download ]; do shift; done; shift; for name; do : > "${name%%=*}_${name#*=}_all.deb"; done'
    fake_bin.add(
        "apt-get",
        f"""{options}
case "$*" in
*update*) {update or ":"}
    : > {scratch}/updated ;;
*) {download or fetch} ;;
esac
""",
    )
    fake_bin.add("dpkg-deb", '/bin/mkdir -p "$3"; : > "$3/${2##*/}"')


def failing(words: str) -> str:
    """A call that ends with what real apt said."""
    return "".join(f"echo {quoted(line)} >&2; " for line in words.splitlines()) + "exit 100"


def quoted(line: str) -> str:
    """For the shell."""
    return "'" + line.replace("'", "'\\''") + "'"
