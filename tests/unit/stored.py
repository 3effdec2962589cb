"""A store with entries in it, for tests."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driverctr.log import Log
from driverctr.modules import ModuleSet, describe
from driverctr.modules.entry import Entry
from driverctr.modules.key import Key
from driverctr.modules.store import Store
from tests.unit.module_files import module_bytes

NAMES = ("nvidia", "nvidia-uvm")
KEY = Key("535.261.03", "open", "11" * 32, "x86_64", "6.1.0-56-amd64", "#1 SMP Debian 6.1.192-2", "ab" * 20)
PROVENANCE = {"compiler": "gcc-12"}


def other(**changes: Any) -> Key:
    """The key with some fields changed."""
    return replace(KEY, **changes)


def make_draft(folder: Path, key: Key = KEY, content: str = "") -> ModuleSet:
    """A set as a build leaves it, for a key; `content` makes its files different from another's."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"version": key.driver_version, "vermagic": f"{key.kernel_release} SMP ", "content": content}
    for name in NAMES:
        (folder / f"{name}.ko").write_bytes(module_bytes(fields, parameters={"NVreg_A": "int"}))
    (folder / "log").write_text("make: done\n")
    files = {name: describe(folder / f"{name}.ko") for name in NAMES}
    return ModuleSet(folder, key.kernel_release, key.kernel_version, key.driver_version, key.module_type, files)


def publish(store: Store, key: Key = KEY, content: str = "", provenance: Mapping[str, str] = PROVENANCE) -> Entry:
    """Build and publish."""
    folder = store.folder.parent / f"draft-{key.digest}"
    return store.publish(key, make_draft(folder, key, content), folder / "log", provenance)


def said(log: Log) -> str:
    """All that was logged."""
    return log.stream.getvalue()  # type: ignore[attr-defined,no-any-return]  # a StringIO in tests


@pytest.fixture
def store(tmp_path: Path, log: Log) -> Store:
    """An empty store."""
    return Store.open(tmp_path / "lib/store", log)
