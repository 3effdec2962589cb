"""Loaded kernel modules and who holds whom, from /sys/module."""

from collections.abc import Collection, Mapping
from pathlib import Path

from driverctr.deferred import graphlib
from driverctr.facts.kernel import build_id_of_notes
from driverctr.files import entries, read_text
from driverctr.paths import Paths
from driverctr.records import frozen

CORE = "nvidia"
"""The module every other module of the driver depends on."""


@frozen
class LoadedModule:
    """A loaded module as the kernel tells it; `refcnt` counts holders and open handles together."""

    name: str
    version: str
    srcversion: str
    build_id: str
    state: str
    refcnt: int
    holders: tuple[str, ...]

    @property
    def handles(self) -> int:
        """References that are no module's: open files and mappings."""
        return max(0, self.refcnt - len(self.holders))


def read(paths: Paths, name: str) -> LoadedModule | None:
    """One loaded module (its name with underscores), or None; a built-in module has no refcnt."""
    folder = paths.sys_modules / name
    refcnt = read_text(folder / "refcnt")
    if refcnt is None:
        return None
    return LoadedModule(
        name=name,
        version=read_text(folder / "version") or "",
        srcversion=read_text(folder / "srcversion") or "",
        build_id=read_build_id(folder / "notes/.note.gnu.build-id"),
        state=read_text(folder / "initstate") or "",
        refcnt=int(refcnt),
        holders=tuple(link.name for link in entries(folder / "holders")),
    )


def read_stack(paths: Paths, core: str = CORE) -> dict[str, LoadedModule]:
    """The core module and all that hold it, directly or through others, by name."""
    found: dict[str, LoadedModule] = {}
    open_names = [core]
    while open_names:
        name = open_names.pop()
        module = None if name in found else read(paths, name)
        if module is not None:
            found[name] = module
            open_names.extend(module.holders)
    return found


def unsettled(stack: Mapping[str, LoadedModule]) -> tuple[LoadedModule, ...]:
    """The modules whose load or unload has not ended: initstate `coming` or `going` (Linux, show_initstate)."""
    return tuple(module for module in stack.values() if module.state in ("coming", "going"))


def unload_order(stack: Mapping[str, LoadedModule]) -> list[str]:
    """Holders before what they hold."""
    graph = {name: [holder for holder in module.holders if holder in stack] for name, module in stack.items()}
    return list(graphlib.TopologicalSorter(graph).static_order())


def read_build_id(note: Path) -> str:
    """The GNU build-id in a file of ELF notes, in hexadecimal, or "" where there is none."""
    try:
        return build_id_of_notes(note.read_bytes())
    except OSError:
        return ""


def kernel_name(name: str) -> str:
    """A module's name as the kernel spells it; a file, and what modprobe is told, may have - for _ (modprobe(8))."""
    return name.replace("-", "_")


def is_available(paths: Paths, name: str) -> bool:
    """Whether a module is loaded or built in (a built-in one without parameters has no folder)."""
    return (paths.sys_modules / kernel_name(name)).is_dir()


def read_parameters(paths: Paths, name: str, wanted: Collection[str] | None = None) -> dict[str, str]:
    """The parameters a loaded module shows in sysfs, or those `wanted` of them; write-only ones are left out."""
    files = entries(paths.sys_modules / name / "parameters")
    values = {file.name: read_text(file) for file in files if wanted is None or file.name in wanted}
    return {parameter: value for parameter, value in values.items() if value is not None}


def read_driver_parameters(paths: Paths) -> dict[str, str]:
    """NVIDIA's registry values in /proc/driver/nvidia/params, by the names modprobe knows (NVreg_*)."""
    text = read_text(paths.proc / "driver/nvidia/params") or ""
    pairs = (line.partition(":") for line in text.splitlines())
    return {f"NVreg_{name.strip()}": value.strip() for name, _, value in pairs if name.strip()}
