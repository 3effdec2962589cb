"""What is asked for often imports little: help the parser alone, status what has something to tell."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import driverctr
from driverctr import hashing, records
from driverctr.facts import pciids
from driverctr.paths import Paths
from driverctr.records import frozen
from tests.unit import status_nodes
from tests.unit.conftest import make_tree

SOURCE = Path(driverctr.__file__).parents[1]
PYTHON = Path(sys.executable).name


@frozen
class Inner:
    """A record in another."""

    number: int


@frozen
class Description:
    """One with others in it."""

    name: str
    parts: tuple[Inner, ...]
    more: dict[str, list[Inner]]


COSTLY = {"argparse", "ctypes", "dataclasses", "inspect", "signal", "subprocess", "threading", "typing"}
"""Each takes a tenth of a bare interpreter's time or more to import."""


def imported(code: str) -> set[str]:
    """What a bare interpreter has imported after a piece of code, which prints to stderr what it prints."""
    before = f"import sys; out, sys.stdout = sys.stdout, sys.stderr; sys.path.insert(0, {str(SOURCE)!r}); "
    done = subprocess.run(
        [sys.executable, "-BIS", "-c", f"{before}{code}\nprint(*sys.modules, file=out)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.allow_process(PYTHON)
@pytest.mark.parametrize("words", [["--help"], ["-h"], ["status", "--help"], ["store", "push", "-h"]])
def test_help_imports_the_parser_alone(words: list[str]) -> None:
    code = f"from driverctr.cli import main\ntry: main({words})\nexcept SystemExit as end: assert not end.code"
    found = imported(code)
    assert {name for name in found if name.startswith("driverctr")} == {
        "driverctr",
        "driverctr.cli",
        "driverctr.conceal",
        "driverctr.deferred",
        "driverctr.errors",
        "driverctr.parser",
    }
    assert not found & (COSTLY - {"argparse"} | {"pathlib", "json"})


@pytest.mark.allow_process(PYTHON)
@pytest.mark.parametrize("state", ["bare", "serving"])
@pytest.mark.parametrize("as_json", [True, False])
def test_status_imports_nothing_that_acts(paths: Paths, state: str, as_json: bool) -> None:
    status_nodes.STATES[state](paths)
    if state == "serving":
        (paths.sys_modules / "nvidia/refcnt").write_text("1\n")
    found = imported(
        f"from driverctr import statusverb, vantage; from pathlib import Path\n"
        f"statusverb.print_now({{}}, as_json={as_json}, paths=vantage.find(Path({str(paths.root)!r})))"
    )
    acting = {"config", "holders", "kmod", "plan", "run", "settings", "statusstore", "steps", "store", "verbs"}
    assert not found & COSTLY
    assert not {name for name in found if name.startswith("driverctr.") and name.rpartition(".")[2] in acting}
    assert ("driverctr.verify" in found) is (state != "bare")


@pytest.mark.allow_process(PYTHON)
def test_what_looks_into_the_store_and_at_who_uses_the_driver_imports_nothing_that_acts(paths: Paths) -> None:
    status_nodes.used(paths)
    status_nodes.folder_of(paths)
    found = imported(
        f"from driverctr import statusverb, vantage; from pathlib import Path\n"
        f"statusverb.print_now({{}}, as_json=False, paths=vantage.find(Path({str(paths.root)!r})))"
    )
    assert {"driverctr.statusstore", "driverctr.facts.holders"} <= found
    assert not found & (COSTLY - {"ctypes"} | {"_hashlib"})
    acting = {"kmod", "plan", "run", "steps", "survey", "node", "verbs"}
    assert not {name for name in found if name.startswith("driverctr.") and name.rpartition(".")[2] in acting}


def test_records_are_copied_and_told_without_dataclasses() -> None:
    one = Description("a", (Inner(1), Inner(2)), {"b": [Inner(3)]})
    assert records.field_names(Description) == records.field_names(one) == ("name", "parts", "more")
    assert records.asdict(one) == dataclasses.asdict(one)
    changed = records.replace(one, name="c")
    assert (changed.name, changed.parts, one.name) == ("c", one.parts, "a")
    with pytest.raises(TypeError, match="no other"):
        records.replace(one, other=1)


def test_a_short_digest_is_that_of_hashlib_whoever_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = hashlib.sha256(b"text").hexdigest()
    assert hashing.sha256_of(b"text") == wanted
    for name in ("_sha256", "_sha2"):
        monkeypatch.setitem(sys.modules, name, None)
    assert hashing.sha256_of(b"text") == wanted


@pytest.mark.allow_process(PYTHON)
def test_wrong_words_beside_help_are_told_as_ever() -> None:
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from driverctr.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "frobnicate", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.count("usage:") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("vendor", "device", "name"),
    [
        (0x10DE, 0x20B0, "GA100 [A100 SXM4 40GB]"),
        (0x10DE, 0x20F0, ""),
        (0x10DE, 0x144E, ""),
        (0x10DF, 0x20F0, "Not NVIDIA's"),
        (0x1234, 0x20B0, ""),
    ],
)
def test_a_name_is_found_below_its_own_vendor(vendor: int, device: int, name: str) -> None:
    assert pciids.find(status_nodes.IDS.encode(), vendor, device) == name


def test_the_database_of_the_image_counts_then_that_of_the_host(paths: Paths) -> None:
    host = paths.root.parent / "host"
    make_tree(host, {"lib/modules": None, "usr/share/hwdata/pci.ids": status_nodes.IDS.replace("GA100", "The host's")})
    spaces = {"proc/1/ns/mnt": "-> mnt:[1]", "proc/self/ns/mnt": "-> mnt:[2]", "proc/1/root": f"-> {host}"}
    make_tree(paths.root, spaces)
    assert pciids.names(paths, 0x10DE, {0x20B0, 0x9999}) == {0x20B0: "The host's [A100 SXM4 40GB]"}
    make_tree(paths.root, {"usr/share/misc/pci.ids": status_nodes.IDS})
    assert pciids.names(paths, 0x10DE, {0x20B0}) == {0x20B0: "GA100 [A100 SXM4 40GB]"}
    assert pciids.names(paths, 0x10DE, ()) == {}
