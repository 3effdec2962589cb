"""Which distribution: that of our image, and that of the host, by os-release(5)."""

import re
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.facts.hostroot import process_root
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

FILES = ("etc/os-release", "usr/lib/os-release")
"""Where it lies below a root, the first that is there (os-release(5))."""

MOUNTED = "host-etc/os-release"
"""Where the operator mounts the host's (reference C.1)."""


@frozen
class OsRelease:
    """A distribution and its release; texts that the file lacks are empty."""

    id: str
    version_id: str = ""
    id_like: tuple[str, ...] = ()
    codename: str = ""
    name: str = ""

    @property
    def major(self) -> str:
        """The release without its minor: 9 of 9.4."""
        return self.version_id.split(".")[0]

    def __str__(self) -> str:
        """As a person would say it: Ubuntu 22.04.5 LTS, or rhel 9.4."""
        return self.name or f"{self.id} {self.version_id}".strip()


def parse(text: str) -> OsRelease:
    """Read os-release(5)'s text; lines that are none of its are passed over, an ID that is not there is "linux"."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        values[name] = _unquoted(value)
    return OsRelease(
        id=(values.get("ID") or "linux").lower(),
        version_id=values.get("VERSION_ID", ""),
        id_like=tuple(values.get("ID_LIKE", "").lower().split()),
        codename=values.get("VERSION_CODENAME", ""),
        name=values.get("PRETTY_NAME", ""),
    )


def _unquoted(text: str) -> str:
    """A value as a shell would take it; in double quotes a backslash stands before the signs that mean something."""
    if len(text) < 2 or text[0] not in "\"'" or text[-1] != text[0]:
        return text
    bare = text[1:-1]
    return re.sub(r"\\([$\"\\`])", r"\1", bare) if text[0] == '"' and "\\" in bare else bare


def of_image(root: Path = Path("/")) -> OsRelease:
    """Our own; raises DriverError (node-file) where the image has none."""
    for name in FILES:
        if text := read_text(root / name):
            return parse(text)
    raise DriverError(
        Code.NODE_FILE,
        f"neither {' nor '.join(str(root / name) for name in FILES)} can be read: this image's distribution is unknown",
        "Build the image on a base that has an os-release file, such as Debian, Ubuntu, UBI or Rocky Linux",
    )


def of_host(paths: Paths) -> OsRelease | None:
    """The host's, by what the operator mounts or by process 1's root; None where neither shows it."""
    if text := read_text(paths.root / MOUNTED):
        return parse(text)
    if (place := process_root(paths.root)) is None:
        return None
    for name in FILES:
        try:
            text = read_text(place.resolve(Path("/") / name))
        except DriverError:
            continue
        if text:
            return parse(text)
    return None
