"""Sets of built modules: what identifies one, how it is described on disk, and who may provide it."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.hashing import sha256
from driverctr.modules import elf
from driverctr.records import frozen

MANIFEST = "manifest.json"
SCHEMA = 1


class Source(StrEnum):
    """Where modules can come from, in the order they are tried."""

    LOADED = "loaded"
    ON_DISK = "on-disk"
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
    """One module file, its size in bytes, and what identifies its build."""

    file: Path
    sha256: str
    build_id: str
    srcversion: str
    vermagic: str
    size: int

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


class Provider(Protocol):
    """Where module sets come from; the providers are asked in order."""

    name: str

    def find(self, wish: Wish) -> ModuleSet:
        """The set, checked; raises DriverError as its refusal."""


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
    )


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
            }
            for name, module in found.modules.items()
        },
    }


def read_manifest(folder: Path) -> ModuleSet:
    """Read a set's description; the files themselves are not looked at.

    Raises DriverError (no-modules) where there is none, or it is not one of ours.
    """
    path = folder / MANIFEST
    try:
        return parse_manifest(json.loads(path.read_text()), folder)
    except OSError as error:
        raise DriverError(Code.NO_MODULES, f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DriverError(Code.NO_MODULES, f"{path} is not as expected: {type(error).__name__}: {error}") from error


def parse_manifest(document: Mapping[str, Any], folder: Path) -> ModuleSet:
    """A set from its description; raises ValueError, KeyError, TypeError or AttributeError for one that is not ours."""
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, we read {SCHEMA}")
    return ModuleSet(
        folder=folder,
        kernel_release=document["kernel_release"],
        kernel_version=document["kernel_version"],
        driver_version=document["driver_version"],
        module_type=document["module_type"],
        modules={name: _module_file(folder, entry) for name, entry in document["modules"].items()},
        patches=tuple(document["patches"]),
        compiler=document["compiler"],
    )


def _module_file(folder: Path, entry: dict[str, Any]) -> ModuleFile:
    """One entry of a manifest; a file's name must not lead out of the folder."""
    name = Path(entry["file"]).name
    if name != entry["file"]:
        raise ValueError(f"file name {entry['file']!r}")
    return ModuleFile(
        file=folder / name,
        sha256=entry["sha256"],
        build_id=entry["build_id"],
        srcversion=entry["srcversion"],
        vermagic=entry["vermagic"],
        size=entry["size"],
    )
