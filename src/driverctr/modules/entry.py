"""One entry of the store: a folder named by its key's digest, with the modules and the documents that describe them."""

import json
from collections.abc import Mapping
from pathlib import Path

from driverctr.errors import DriverError
from driverctr.modules import (
    DIGEST,
    MANIFEST,
    ModuleSet,
    key,
    manifest_document,
    parse_document,
    parse_manifest,
    reading,
    trust,
)
from driverctr.modules import SCHEMA as MANIFEST_SCHEMA
from driverctr.modules.key import Key
from driverctr.modules.ondisk import check_described
from driverctr.records import frozen

KEY = "key.json"
PROVENANCE = "provenance.json"
BUILD_LOG = "build.log"
DOCUMENTS = (KEY, MANIFEST, PROVENANCE)

SCHEMAS = {KEY: key.SCHEMA, MANIFEST: MANIFEST_SCHEMA}
"""The newest schema of each document that we read; that of provenance is free text by name."""


@frozen
class Description:
    """What the documents of an entry say."""

    key: Key
    module_set: ModuleSet
    provenance: Mapping[str, str]


@frozen
class Entry:
    """An entry as its documents describe it, its size in bytes, and when it was used last (seconds since the epoch).

    The files are believed only after `ondisk.verify`.
    """

    key: Key
    module_set: ModuleSet
    provenance: Mapping[str, str]
    size: int
    used: float

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.module_set.folder

    def __str__(self) -> str:
        """For messages."""
        return f"{self.key.digest[:12]} ({self.key.wish})"


@frozen
class Refused:
    """A folder among the entries that is none for us, and why; a `newer` one is whole, and another's to read."""

    folder: Path
    reason: str
    newer: bool = False


def read(folder: Path) -> Entry | Refused:
    """An entry by its documents; every file in it must be root's own, and none a link."""
    try:
        used = trust.check_folder(folder).st_mtime
        sizes = {path.name: trust.check_file(path).st_size for path in folder.iterdir()}
        described = parse({name: trust.read(folder / name) for name in DOCUMENTS}, folder)
    except OSError as error:
        return Refused(folder, f"{error.filename}: {error.strerror}")
    except DriverError as error:
        return Refused(folder, error.message)
    if isinstance(described, Refused):
        return described
    if described.key.digest != folder.name:
        return Refused(folder, f"{folder / KEY} describes the entry {described.key.digest[:12]}..., not this one")
    for module in described.module_set.modules.values():
        if sizes.get(module.file.name) != module.size:
            there = sizes.get(module.file.name)
            found = "is missing" if there is None else f"has {there} bytes, not {module.size}"
            return Refused(folder, f"{module.file} {found}")
    return Entry(described.key, described.module_set, described.provenance, sum(sizes.values()), used)


def parse(documents: Mapping[str, bytes], folder: Path) -> Description | Refused:
    """What an entry's documents say, wherever they come from; nothing of the entry's files is looked at."""
    try:
        read = {}
        for name in DOCUMENTS:
            with reading(folder / name):
                read[name] = parse_document(documents[name])
        for name, ours in SCHEMAS.items():
            schema = read[name].get("schema")
            if type(schema) is int and schema > ours:
                return Refused(folder, f"{folder / name} was written by a newer driverctr; left alone", newer=True)
        with reading(folder / KEY):
            described = key.read(read[KEY])
        with reading(folder / MANIFEST):
            module_set = parse_manifest(read[MANIFEST], folder)
        check_described(module_set, described.wish)
    except DriverError as error:
        return Refused(folder, error.message)
    provenance = {name: str(value) for name, value in read[PROVENANCE].items()}
    return Description(described, module_set, provenance)


def write_documents(described: Description, folder: Path) -> None:
    """Write an entry's documents where it is staged; raises OSError."""
    texts = {
        KEY: described.key.document,
        MANIFEST: json.dumps(manifest_document(described.module_set), indent=2) + "\n",
        PROVENANCE: json.dumps(dict(described.provenance), indent=2) + "\n",
    }
    for name, text in texts.items():
        file = folder / name
        file.write_text(text)
        file.chmod(0o644)


def is_entry(folder: Path) -> bool:
    """Whether a folder has a name that an entry can have."""
    return DIGEST.fullmatch(folder.name) is not None
