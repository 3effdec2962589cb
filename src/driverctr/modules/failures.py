"""Builds that did not serve in this boot: never tried again while something that served can be had instead."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from driverctr import files, parameters
from driverctr.deferred import hashlib
from driverctr.errors import DriverError
from driverctr.modules import Wish
from driverctr.modules.key import Key
from driverctr.modules.loaded import boot_id
from driverctr.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RECORD = "failed-builds.json"
SCHEMA = 1
KEPT = 20


def attempt(paths: Paths, wish: Wish, wanted: Key | None, names: Sequence[str]) -> str:
    """What identifies a try: the modules wanted, and the parameters the user asks for them; raises DriverError."""
    words = {name: parameters.user_words(paths, name) for name in names}
    document = json.dumps([wanted.digest if wanted else str(wish), words], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def remember(paths: Paths, tried: str, error: DriverError) -> None:
    """Note that a try failed, and why; raises OSError."""
    _write(paths, {**_read(paths), tried: error.message})


def _write(paths: Paths, failures: Mapping[str, str]) -> None:
    document = {"schema": SCHEMA, "boot": boot_id(paths), "failures": dict(list(failures.items())[-KEPT:])}
    files.write_atomic(paths.own_run / RECORD, json.dumps(document, indent=2) + "\n")


def take_back(paths: Paths, tried: str) -> None:
    """A try that failed earlier served now, and a record of none is no record; raises OSError."""
    if failures := {other: why for other, why in _read(paths).items() if other != tried}:
        _write(paths, failures)
    else:
        forget(paths)


def recall(paths: Paths, tried: str) -> str:
    """Why a try failed earlier in this boot; "" where it did not."""
    return _read(paths).get(tried, "")


def forget(paths: Paths) -> None:
    """Every try may be made again; raises OSError."""
    files.remove(paths.own_run / RECORD)


def _read(paths: Paths) -> dict[str, str]:
    try:
        document: dict[str, Any] = json.loads(files.read_text(paths.own_run / RECORD) or "")
        if document["schema"] == SCHEMA and document["boot"] == boot_id(paths):
            return {str(tried): str(reason) for tried, reason in document["failures"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}
