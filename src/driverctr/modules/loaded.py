"""The driver in the kernel: which of our builds it is, with which parameters, and what of that must be remembered.

The kernel tells the build-id of each module. It does not tell which source and kernel a build was made for, nor every
parameter, so a load leaves a record of both for the next start in this boot (DESIGN section 2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from driverctr import files, parameters
from driverctr.errors import Code, DriverError
from driverctr.facts.modules import CORE, LoadedModule, kernel_name
from driverctr.modules import ModuleSet, Wish, elf, key, manifest_document, parse_manifest
from driverctr.modules.key import Key
from driverctr.modules.ondisk import check_complete
from driverctr.paths import Paths
from driverctr.records import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RECORD = "load.json"
SCHEMA = 1


@frozen
class Build:
    """A set of ours and the key it was had under, None where it has none (modules that a user brought).

    `provenance` is known of what was made or fetched in this start.
    """

    module_set: ModuleSet
    key: Key | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """What it is, for a sentence."""
        core = self.module_set.modules.get(CORE)
        return f"{self.module_set.driver_version} with build-id {core.build_id[:12] if core else 'unknown'}"

    def is_same(self, other: ModuleSet) -> bool:
        """Whether a set came from the same build, wherever its files lie."""
        one, two = (
            {name: module.build_id for name, module in found.modules.items()} for found in (self.module_set, other)
        )
        return one == two

    def fits(self, wish: Wish, wanted: Key | None) -> bool:
        """Whether it is what is wanted; without a key on either side the three fields of the wish decide."""
        if self.key is not None and wanted is not None:
            return not wanted.differing(self.key)
        found = self.module_set
        return Wish(found.kernel_release, found.driver_version, found.module_type) == wish


@frozen
class Record:
    """What was loaded last in this boot, and the parameters it was given, by module."""

    build: Build
    parameters: Mapping[str, tuple[str, ...]]


@frozen
class Loaded:
    """The driver in the kernel is a build of ours, made for what is wanted.

    `parameters` are those it must have: what is asked now or, where that is `stale`, what it was loaded with.
    `stale` names each that would have to change, `missing` the modules wanted beside.
    """

    build: Build
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def judge(
    paths: Paths,
    stack: Mapping[str, LoadedModule],
    candidates: Iterable[Build],
    names: Sequence[str],
    wish: Wish,
) -> Loaded:
    """What is loaded, if it is one of the candidates; `names` are the modules wanted, as modprobe calls them.

    Raises DriverError (no-modules) with the reason why it cannot be kept.
    """
    core = stack.get(CORE)
    if core is None:
        raise DriverError(Code.NO_MODULES, "no module of the driver is loaded")
    if core.version != wish.driver_version:
        raise DriverError(Code.NO_MODULES, f"{CORE} {core.version or 'of no version'} is loaded")
    build = next((build for build in candidates if is_loaded(build.module_set, stack)), None)
    if build is None:
        raise DriverError(
            Code.NO_MODULES, f"the modules loaded are none of our builds (build-id {core.build_id[:12] or 'unknown'})"
        )
    missing = find_missing(build.module_set, stack, names)
    record = read(paths)
    given = record.parameters if record and record.build.is_same(build.module_set) else None
    present = [name for name in names if name not in missing]
    asked = {name: parameters.asked(paths, name, _known(build.module_set, name, given)) for name in names}
    stale = tuple(line for name in present for line in _stale(paths, name, asked[name], given))
    if not stale:
        return Loaded(build, asked, missing=missing)
    former = {name: given.get(name, ()) if given is not None else () for name in present}
    return Loaded(build, {**former, **{name: asked[name] for name in missing}}, stale, missing)


def find_missing(module_set: ModuleSet, stack: Mapping[str, LoadedModule], names: Sequence[str]) -> tuple[str, ...]:
    """The modules to be loaded beside those of the set that are loaded.

    Raises DriverError (no-modules) where the set has no such, or their files are gone.
    """
    missing = tuple(name for name in names if kernel_name(name) not in stack)
    check_complete(module_set, names)
    lacking = [name for name in missing if not module_set.modules[name].file.is_file()]
    if lacking:
        raise DriverError(Code.NO_MODULES, f"{', '.join(lacking)} is not loaded, and the file of that build is gone")
    return missing


def is_loaded(module_set: ModuleSet, stack: Mapping[str, LoadedModule]) -> bool:
    """Whether each loaded module that the set has too is the set's own build, by the note the kernel keeps of it."""
    pairs = [
        (stack[kernel_name(name)].build_id, module.build_id)
        for name, module in module_set.modules.items()
        if kernel_name(name) in stack
    ]
    return CORE in module_set.modules and CORE in stack and all(here and here == there for here, there in pairs)


def _known(module_set: ModuleSet, name: str, given: Mapping[str, Sequence[str]] | None) -> set[str]:
    """The parameters a module has, as far as our own defaults ask: where its file is gone, those it was given."""
    file = module_set.modules[name].file
    if file.is_file():
        return set(elf.read(file).parameters)
    return set(parameters.split((given or {}).get(name, ())))


def _stale(paths: Paths, name: str, asked: Sequence[str], given: Mapping[str, Sequence[str]] | None) -> Iterable[str]:
    """What the module would have to be loaded anew for: by the kernel's word, and by the record where that is silent.

    What was given and is no longer asked has a default again; only the record tells.
    """
    yield from (f"{name} {difference}" for difference in parameters.differing(paths, name, asked))
    if given is None:
        return
    visible = parameters.shown(paths, name)
    wanted, had = parameters.split(asked), parameters.split(given.get(name, ()))
    for parameter in sorted(wanted.keys() | had.keys()):
        if parameter in wanted and parameter in visible:
            continue
        if wanted.get(parameter) != had.get(parameter):
            yield (
                f"{name} {parameter}: asked {wanted.get(parameter, 'no longer')}, "
                f"was loaded with {had.get(parameter, 'none')}"
            )


def write(paths: Paths, record: Record) -> None:
    """Remember what was loaded; raises OSError."""
    document = {
        "schema": SCHEMA,
        "boot": boot_id(paths),
        "key": json.loads(record.build.key.document) if record.build.key else None,
        "folder": str(record.build.module_set.folder),
        "set": manifest_document(record.build.module_set),
        "parameters": {name: list(words) for name, words in record.parameters.items()},
    }
    files.write_atomic(paths.own_run / RECORD, json.dumps(document) + "\n")


def read(paths: Paths) -> Record | None:
    """What was loaded last in this boot; None where nothing was, or the record is not ours."""
    try:
        document: dict[str, Any] = json.loads(files.read_text(paths.own_run / RECORD) or "")
        if document["schema"] != SCHEMA or document["boot"] != boot_id(paths):
            return None
        found = document["key"]
        return Record(
            Build(parse_manifest(document["set"], Path(document["folder"])), key.read(found) if found else None),
            {name: tuple(words) for name, words in document["parameters"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def forget(paths: Paths) -> None:
    """Nothing of ours is loaded any more, or soon something else will be; raises OSError."""
    files.remove(paths.own_run / RECORD)


def boot_id(paths: Paths) -> str:
    """What tells this boot from all others (random(4), /proc/sys/kernel/random/boot_id)."""
    return files.read_text(paths.proc / "sys/kernel/random/boot_id") or ""
