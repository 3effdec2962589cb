"""Sets of built modules: what identifies one, how it is described on disk, and who may provide it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from driverctr import files
from driverctr.deferred import pattern
from driverctr.errors import Code, DriverError
from driverctr.facts.modules import kernel_name
from driverctr.hashing import sha256
from driverctr.modules import elf
from driverctr.records import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MANIFEST = "manifest.json"
SCHEMA = 1

TEXTS = ("kernel_release", "kernel_version", "driver_version", "module_type", "compiler")
"""Fields of a manifest that are shown to people."""

NAME = pattern(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
"""A module's name; its file is called so too, and leads nowhere else."""
PEERMEM = "nvidia-peermem"
"""The module that hangs on somebody else's too, MOFED's ib_core: a driver serves without it."""
DIGEST = pattern(r"[0-9a-f]{64}")
"""A SHA-256."""


class Source(StrEnum):
    """Where modules can come from, in the order they are tried."""

    LOADED = "loaded"
    STORE = "store"
    ON_DISK = "on-disk"
    REMOTE = "remote"
    BUILD = "build"
    LAST_GOOD = "last-good"


@frozen
class Wish:
    """The set somebody wants: for this kernel, of this driver, of this module type."""

    kernel_release: str
    driver_version: str
    module_type: str

    def __str__(self) -> str:
        """For messages."""
        return f"{self.module_type} {self.driver_version} for {self.kernel_release}"


@frozen
class ModuleFile:
    """One module file, its size in bytes, what identifies its build, and the types of its parameters by name.

    A manifest of an older driverctr tells no parameters; `known_parameters` asks the file then.
    """

    file: Path
    sha256: str
    build_id: str
    srcversion: str
    vermagic: str
    size: int
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def kernel_release(self) -> str:
        """The kernel it was built for: the first word of vermagic (linux/vermagic.h)."""
        return self.vermagic.split(" ")[0]


@frozen
class ModuleSet:
    """Modules that were built together; `kernel_version` is `uname -v` of their kernel, empty if not known."""

    folder: Path
    kernel_release: str
    kernel_version: str
    driver_version: str
    module_type: str
    modules: Mapping[str, ModuleFile]
    patches: tuple[str, ...] = ()
    compiler: str = ""


def describe(path: Path) -> ModuleFile:
    """What a module file is; raises DriverError (no-modules) or OSError."""
    info = elf.read(path)
    return ModuleFile(
        file=path,
        sha256=sha256(path),
        build_id=info.build_id,
        srcversion=info.field("srcversion"),
        vermagic=info.field("vermagic"),
        size=path.stat().st_size,
        parameters=info.parameters,
    )


def known_parameters(module: ModuleFile) -> Mapping[str, str]:
    """The types of a module's parameters by name; raises DriverError (no-modules) or OSError where no file tells."""
    return module.parameters or elf.read(module.file).parameters


def needed_of_host(found: ModuleSet, names: Iterable[str], *, softly: bool = False) -> tuple[str, ...]:
    """The host's modules whose symbols these of a set use, or `softly` also those they ask for.

    Raises DriverError (no-modules).
    """
    ours = {kernel_name(name) for name in found.modules}
    needed: list[str] = []
    for name in filter(found.modules.__contains__, names):
        with reading(found.modules[name].file):
            info = elf.read(found.modules[name].file)
        needed += [*info.needed, *(info.wanted_before if softly else ())]
    return tuple(dict.fromkeys(name for name in needed if kernel_name(name) not in ours))


def write_manifest(found: ModuleSet) -> None:
    """Write the set's description beside its files; raises OSError."""
    files.write_atomic(found.folder / MANIFEST, json.dumps(manifest_document(found), indent=2) + "\n")


def manifest_document(found: ModuleSet) -> dict[str, Any]:
    """The set's description, as it is stored."""
    return {
        "schema": SCHEMA,
        "kernel_release": found.kernel_release,
        "kernel_version": found.kernel_version,
        "driver_version": found.driver_version,
        "module_type": found.module_type,
        "patches": list(found.patches),
        "compiler": found.compiler,
        "modules": {
            name: {
                "file": module.file.name,
                "sha256": module.sha256,
                "build_id": module.build_id,
                "srcversion": module.srcversion,
                "vermagic": module.vermagic,
                "size": module.size,
                "parameters": dict(module.parameters),
            }
            for name, module in found.modules.items()
        },
    }


def read_manifest(folder: Path) -> ModuleSet:
    """Read a set's description; the files themselves are not looked at.

    Raises DriverError (no-modules) where there is none, or it is not one of ours.
    """
    path = folder / MANIFEST
    with reading(path):
        return parse_manifest(parse_document(files.read_regular(path)), folder)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the document in whatever is wrong with it: DriverError (no-modules)."""
    try:
        yield
    except OSError as error:
        raise DriverError(Code.NO_MODULES, f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DriverError(Code.NO_MODULES, f"{path} is not as expected: {type(error).__name__}: {error}") from error


def parse_document(content: bytes) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else, RecursionError for what is nested too deeply."""
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    return document


def parse_manifest(document: Mapping[str, Any], folder: Path) -> ModuleSet:
    """A set from its description; raises ValueError, KeyError, TypeError or AttributeError for one that is not ours."""
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']!r}, we read {SCHEMA}")
    for name in TEXTS:
        if not isinstance(document[name], str) or not document[name].isprintable():
            raise ValueError(f"{name} is {document[name]!a}")
    return ModuleSet(
        folder=folder,
        kernel_release=document["kernel_release"],
        kernel_version=document["kernel_version"],
        driver_version=document["driver_version"],
        module_type=document["module_type"],
        modules={name: _module_file(folder, name, entry) for name, entry in document["modules"].items()},
        patches=tuple(document["patches"]),
        compiler=document["compiler"],
    )


def _module_file(folder: Path, name: str, entry: Mapping[str, Any]) -> ModuleFile:
    """One entry of a manifest; a file's name must not lead out of the folder."""
    if not NAME.fullmatch(name) or entry["file"] != f"{name}.ko":
        raise ValueError(f"module {name!r} with file name {entry['file']!r}")
    parameters = entry.get("parameters", {})
    texts = (entry["build_id"], entry["srcversion"], entry["vermagic"], *parameters, *parameters.values())
    if not all(isinstance(text, str) for text in texts) or not DIGEST.fullmatch(entry["sha256"]):
        raise ValueError(f"module {name} is described otherwise than by text and a SHA-256")
    if type(entry["size"]) is not int or entry["size"] < 0:
        raise ValueError(f"module {name} has size {entry['size']!r}")
    return ModuleFile(
        file=folder / entry["file"],
        sha256=entry["sha256"],
        build_id=entry["build_id"],
        srcversion=entry["srcversion"],
        vermagic=entry["vermagic"],
        size=entry["size"],
        parameters=parameters,
    )
