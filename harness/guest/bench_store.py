"""Wall seconds of a store hit, every file hashed, and of sha256sum on the same files, interleaved; in a container.

Argument: a folder of modules as `nvidia-driver build --output` leaves it, with one set in it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, "/opt/driverctr/lib")

from driverctr.log import Log
from driverctr.modules import read_manifest
from driverctr.modules.key import Key
from driverctr.modules.ondisk import verify
from driverctr.modules.store import Store

ROUNDS = 9
LEAST = 60e6
"""Bytes: a set that small says nothing."""

(manifest,) = Path(sys.argv[1]).rglob("manifest.json")
draft = read_manifest(manifest.parent)
folder = Path(tempfile.mkdtemp()) / "store"
key = Key(draft.driver_version, draft.module_type, "", "x86_64", draft.kernel_release, draft.kernel_version, "ab" * 20)
published = Store.open(folder, Log()).publish(key, draft, None, {})
modules = [str(module.file) for module in published.module_set.modules.values()]
assert published.size > LEAST


def ours() -> None:
    """As a start looks: nothing of the store is known yet."""
    store = Store.open(folder, Log())
    found = store.find(key)
    verify(found.module_set, meanwhile=lambda: None)
    store.touch(found.key)


def bare() -> None:
    """The page cache is warm for both."""
    subprocess.run(["sha256sum", *modules], check=True, stdout=subprocess.DEVNULL)


def seconds(act: Callable[[], None]) -> float:
    """Wall time of one act."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


times: dict[str, list[float]] = {"ours": [], "bare": []}
for _ in range(ROUNDS):
    for name, act in (("ours", ours), ("bare", bare)):
        times[name].append(seconds(act))
print(json.dumps({name: statistics.median(values) for name, values in times.items()} | {"bytes": published.size}))
