"""What of `driverctr status` needs the settings: the store, the kernels to come, and the times of old starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from driverctr import config, history, nextkernels, status
from driverctr.config import Config
from driverctr.facts.gpus import Gpu
from driverctr.history import WHOLE
from driverctr.log import Level, Log
from driverctr.modules.store import ENTRIES
from driverctr.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def collect(
    paths: Paths,
    environment: Mapping[str, str],
    start: Mapping[str, Any],
    told: Mapping[str, str],
    seen: tuple[Gpu, ...],
) -> dict[str, Any]:
    """The properties store, kernels and steps, and which settings are not valid: they count as not given."""
    settings, refused = config.load_valid(environment)
    log = Log(settings.log_format, Level.WARNING)
    place = history.folder(paths, settings)
    return {
        "store": {**told, **_measure(place)},
        "kernels": nextkernels.read(paths, settings, log, start.get("next_kernels") or {}, seen),
        "steps": _steps(place, settings, start),
        "refused_settings": [status.describe_failure(error) for error in refused.values()],
    }


def _measure(place: Path | None) -> dict[str, Any]:
    """How many entries lie in the store, and their bytes; nothing is read of them."""
    if place is None or not place.is_dir():
        return {"folder": "" if place is None else str(place), "entries": 0 if place else None, "bytes": None}
    sizes = [sum(_size(file) for file in _inside(folder)) for folder in _inside(place / ENTRIES)]
    return {"folder": str(place), "entries": len(sizes), "bytes": sum(sizes)}


def _inside(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return ()


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0


def _steps(place: Path | None, settings: Config, start: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of the last start, each with the median of earlier ones that had their modules from the same place."""
    steps: list[dict[str, Any]] = [dict(step) for step in start.get("steps", ())]
    began = start.get("started", 0.0)
    earlier = [one for one in history.read(place) if abs(one.started - began) > 1] if place and steps else []
    usual = history.medians(earlier, str(start.get("modules_from", "")))
    return [{**step, "median": usual.get(step["name"])} for step in steps if step["name"] != WHOLE]
