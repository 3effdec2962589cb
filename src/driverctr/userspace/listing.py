"""What belongs to the userspace of a driver: each file and link of it, firmware included, as data.

The image's own was recorded when the image was built; the store keeps those of versions that served.
"""

import json
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driverctr.errors import Code, DriverError
from driverctr.records import asdict, frozen
from driverctr.userspace.image import REBUILD
from driverctr.versions import DriverVersion

LISTING = Path("usr/share/driverctr/userspace.json")
"""Below the root; written when the image was built."""

SCHEMA = 1
MODES = 0o7777
DIGITS = frozenset("0123456789abcdef")


@frozen
class Item:
    """A file, or a link where `link` says where to; the path is below the root, the size in bytes."""

    path: str
    link: str = ""
    sha256: str = ""
    size: int = 0
    mode: int = 0o644


@frozen
class Listing:
    """Everything of one version, for images of one platform: distribution and architecture, as `Image` has them.

    `cuda_version` is as `Image` has it; older images did not tell.
    """

    driver_version: str
    platform: str
    items: tuple[Item, ...]
    cuda_version: str = ""

    @property
    def files(self) -> Mapping[str, Item]:
        """One item for each content, by its SHA-256."""
        return {item.sha256: item for item in self.items if not item.link}

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(item.size for item in self.files.values())

    @property
    def document(self) -> str:
        """As it is stored."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"


def read(root: Path) -> Listing:
    """The image's own; raises DriverError (no-modules) where the image does not tell, or not as we expect."""
    path = root / LISTING
    try:
        return parse(json.loads(path.read_bytes()))
    except OSError as error:
        raise DriverError(
            Code.NO_MODULES, f"the image does not tell what its userspace is: {path}: {error.strerror}", REBUILD
        ) from error
    except ValueError as error:
        raise DriverError(Code.NO_MODULES, f"{path} is not as expected: {error}", REBUILD) from error


def parse(document: Any) -> Listing:
    """A listing from its document; raises ValueError for one that is not ours, or leads out of the root."""
    try:
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']}, we read {SCHEMA}")
        version = DriverVersion(document["driver_version"]).text
        items = tuple(_item(each) for each in document["items"])
        return Listing(version, str(document["platform"]), items, str(document.get("cuda_version", "")))
    except (KeyError, TypeError, AttributeError, DriverError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _item(entry: Mapping[str, Any]) -> Item:
    item = Item(entry["path"], entry["link"], entry["sha256"], entry["size"], entry["mode"])
    if not _is_inside(item.path) or item.path == ".":
        raise ValueError(f"path {item.path!r}")
    if item.link:
        if not _is_inside(os.path.join(os.path.dirname(item.path), item.link)):  # noqa: PTH118, PTH120  # text alone
            raise ValueError(f"{item.path} -> {item.link!r}")
    elif len(item.sha256) != 64 or not DIGITS.issuperset(item.sha256) or type(item.size) is not int or item.size < 0:
        raise ValueError(f"{item.path} is described otherwise than by a SHA-256 and a size")
    if type(item.mode) is not int or item.mode & ~MODES:
        raise ValueError(f"{item.path} has mode {item.mode!r}")
    return item


def _is_inside(path: str) -> bool:
    """Whether a path stays below the root, by its text alone."""
    normal = os.path.normpath(path)
    return bool(path) and not os.path.isabs(path) and normal != ".." and not normal.startswith("../")  # noqa: PTH117  # a name, not a file
