"""`driverctr store`: what each verb prints, and with which exit status it ends."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from driverctr import config as settings
from driverctr import storeverbs
from driverctr.errors import Code, DriverError
from driverctr.hashing import sha256
from driverctr.log import Log
from driverctr.modules import pins
from driverctr.modules.key import Key
from driverctr.modules.pins import Good
from driverctr.modules.store import Store
from driverctr.parser import make_parser
from driverctr.paths import Paths
from driverctr.signals import Signals
from driverctr.steps import Tools
from driverctr.verbs import act_of, make_tools
from tests.unit.conftest import make_tree
from tests.unit.stored import publish, said
from tests.unit.test_installed_kernels import headers_files

RUNNING = "6.1.0-56-amd64"
VERSION = "#1 SMP Debian 6.1.192-2"


@dataclass
class Node:
    """A node with a store, and the verbs on it."""

    tools: Tools
    store: Store
    capsys: pytest.CaptureFixture[str]

    def call(self, *words: str) -> tuple[int, str]:
        """The exit status and what was printed."""
        arguments = make_parser().parse_args(["store", *words])
        status = act_of(arguments)(self.tools, arguments)
        return status, self.capsys.readouterr().out


@pytest.fixture
def node(paths: Paths, log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Node:
    """An image with one open source on a node with a kernel that runs; nobody signals us."""
    monkeypatch.setattr(Signals, "install", lambda signals: None)
    described = {
        "driver_version": "535.261.03",
        "sources": [{"type": "open", "version": "535.261.03", "path": "/usr/src/nvidia", "sha256": "11" * 32}],
        "distribution": "debian",
        "architecture": "amd64",
    }
    make_tree(
        paths.root,
        {
            "var/lib/driverctr": None,
            "usr/share/driverctr/image.json": json.dumps(described),
            "proc/sys/kernel/osrelease": f"{RUNNING}\n",
            "proc/sys/kernel/version": f"{VERSION}\n",
        },
    )
    config = settings.load({"KERNEL_MODULE_TYPE": "open"})
    tools = make_tools(config, log, paths)
    return Node(tools, storeverbs.open_store(tools), capsys)


@pytest.fixture
def wanted(node: Node) -> Key:
    """What a start would want here."""
    return storeverbs.wanted_key(node.tools, storeverbs.kernel_of(node.tools, None))


def test_list_shows_what_fits_what_is_pinned_and_what_is_damaged(node: Node, wanted: Key) -> None:
    publish(node.store, replace(wanted, kernel_version="#0"))
    publish(node.store, wanted)
    (publish(node.store, replace(wanted, kernel_version="#9")).folder / "nvidia.ko").unlink()
    pins.record_good(node.store.folder, Good(wanted))
    status, text = node.call("list")
    lines = text.splitlines()
    assert status == 0 and lines[0].split()[:2] == ["KEY", "MB"]
    assert lines[1].split()[0] == wanted.digest[:12] and "yes" in lines[1] and "running" in lines[1]
    assert "open 535.261.03 for 6.1.0-56-amd64 #1 SMP" in lines[1] and " no " in lines[2] and "running" not in lines[2]
    assert lines[3].startswith("damaged: ") and "nvidia.ko is missing" in lines[3]
    assert lines[4] == f"2 entries, 0 MB in {node.store.folder}"


def test_list_for_programs(node: Node, wanted: Key) -> None:
    found = publish(node.store, wanted)
    document = json.loads(node.call("list", "--json")[1])
    (entry,) = document["entries"]
    assert (entry["digest"], entry["size"], entry["fits"], entry["pinned"]) == (wanted.digest, found.size, True, "")
    assert entry["kernel_release"] == RUNNING and entry["provenance"] == {"compiler": "gcc-12"}
    assert document["size"] == found.size and document["refused"] == []


def test_each_field_for_programs_is_explained(node: Node, wanted: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    (publish(node.store, replace(wanted, kernel_version="#9")).folder / "nvidia.ko").unlink()
    publish(node.store, wanted)
    told = json.loads(node.call("list", "--json")[1])
    kept = SimpleNamespace(size=1, all=lambda: [SimpleNamespace(driver_version="535.1", items=(), size=1)])
    monkeypatch.setattr(storeverbs, "shares", lambda found: {"535.1": 1})
    told |= storeverbs.describe_userspaces(cast("Any", kept), ())
    fields = set(told)
    for name in ("entries", "refused", "userspaces"):
        fields |= {f"{name}[].{field}" for field in told[name][0]}
    page = (Path(__file__).parents[2] / "docs/store.md").read_text().partition("## For programs")[2]
    assert set(re.findall(r"^\| `([a-z0-9_.\[\]]+)`", page, re.MULTILINE)) == fields


def test_list_goes_on_where_the_pins_cannot_be_read(node: Node, wanted: Key) -> None:
    publish(node.store, wanted)
    (node.store.folder / "pins.json").write_text("x")
    assert node.call("list")[0] == 0 and "what is pinned is not known" in said(node.store.log)


@pytest.mark.parametrize(
    "change", [{"kernel_build_id": "cd" * 20}, {"architecture": "aarch64"}, {"kernel_version": "#"}]
)
def test_an_entry_of_another_kernel_does_not_run_here(node: Node, wanted: Key, change: dict[str, Any]) -> None:
    publish(node.store, replace(wanted, **change))
    assert json.loads(node.call("list", "--json")[1])["entries"][0]["fits"] is False


def test_why_tells_the_entry_that_fits_or_what_differs(node: Node, wanted: Key) -> None:
    assert node.call("why") == (Code.NO_MODULES.exit_status, f"miss: {node.store.describe_miss(wanted)}\n")
    publish(node.store, replace(wanted, source_sha256="22" * 32))
    status, text = node.call("why")
    assert status == Code.NO_MODULES.exit_status and "differs in source_sha256: wanted " in text
    found = publish(node.store, wanted)
    assert node.call("why") == (0, f"hit: {found} in {found.folder}\n")
    status, text = node.call("why", "--kernel", "6.12.0-1-amd64")
    assert status == Code.NO_MODULES.exit_status and "kernel_release: wanted 6.12.0-1-amd64, there 6.1.0" in text
    with pytest.raises(DriverError):
        node.call("why", "--kernel", "../etc")


def test_why_tells_that_the_entry_was_built_against_other_headers_and_with_another_compiler(
    node: Node, wanted: Key, paths: Paths
) -> None:
    found = publish(node.store, wanted, provenance={"symvers_sha256": "22" * 32, "compiler": "gcc-11 (Debian) 11"})
    make_tree(paths.root, {"proc/version": "Linux version 6.1 (a@b) (gcc-12 (Debian) 12, GNU ld 2.40) #1\n"})
    warning = "warning: built with gcc-11 (Debian) 11, the kernel with gcc-12 (Debian) 12\n"
    assert node.call("why") == (0, f"hit: {found} in {found.folder}\n{warning}")
    symbols = f"usr/src/linux-headers-{RUNNING}/Module.symvers"
    make_tree(paths.root, {**headers_files(RUNNING, VERSION), symbols: "0x1 a\n"})
    status, text = node.call("why")
    assert status == Code.NO_MODULES.exit_status and text.startswith(f"miss: {found} was built against other headers")
    assert f"differs in symvers_sha256: wanted {sha256(paths.root / symbols)[:12]}..., there 222222222222..." in text
    assert text.endswith(warning)
    pins.record_good(node.store.folder, Good(wanted))
    assert node.call("why")[0] == 0


def test_verify_sets_damaged_entries_aside_and_says_so_by_its_exit_status(node: Node, wanted: Key) -> None:
    publish(node.store, wanted)
    assert node.call("verify") == (0, "1 entries are whole\n")
    file = publish(node.store, replace(wanted, kernel_version="#9")).folder / "nvidia.ko"
    file.write_bytes(bytes(file.stat().st_size))
    (node.store.folder / "entries/foreign").mkdir()
    status, text = node.call("verify")
    assert status == Code.STORE_UNUSABLE.exit_status
    assert f"damaged: {file} is not the file its manifest describes" in text and "1 entries are whole" in text
    assert len(list((node.store.folder / "aside").iterdir())) == 2
    assert node.call("verify")[0] == 0


def test_verify_leaves_what_a_newer_driverctr_wrote(node: Node, wanted: Key) -> None:
    file = publish(node.store, wanted).folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 2}))
    status, text = node.call("verify")
    assert (status, text.splitlines()[0]) == (0, f"newer: {file} was written by a newer driverctr; left alone")
    assert file.exists()


def test_prune_gives_up_what_was_not_used_for_longest(node: Node, wanted: Key) -> None:
    for number in range(3):
        publish(node.store, replace(wanted, kernel_version=f"#{number}"))
    assert node.call("prune")[1] == "3 entries, 0 MB are left\n"
    with pytest.raises(DriverError, match="--max-size='much' is not a whole number and M, G or T"):
        node.call("prune", "--max-size", "much")
    object.__setattr__(node.tools.config, "store_max_size", 1)
    status, text = node.call("prune")
    assert status == 0 and text.count("given up: ") == 3 and text.endswith("0 entries, 0 MB are left\n")


def test_export_takes_all_or_those_named_and_import_brings_them_back(node: Node, wanted: Key, tmp_path: Path) -> None:
    later = replace(wanted, kernel_release="6.1.0-57-amd64")
    found = {key: publish(node.store, key) for key in (wanted, later)}
    file = str(tmp_path / "export")
    assert node.call("export", file)[1].count("exported: ") == 2
    assert node.call("export", wanted.digest[:8], file)[1] == f"exported: {found[wanted]}\n"
    assert node.call("export", "--kernel", later.kernel_release, file)[1] == f"exported: {found[later]}\n"
    node.store.prune(0)
    assert node.call("import", file) == (0, f"imported: {found[later]}\n")
    assert [entry.key for entry in node.store.entries()] == [later]


@pytest.mark.parametrize("words", [["--kernel", "6.12"], ["ffffffff"], ["ab"]])
def test_export_of_nothing_is_an_error_and_writes_nothing(
    node: Node, wanted: Key, tmp_path: Path, words: list[str]
) -> None:
    publish(node.store, wanted)
    with pytest.raises(DriverError) as refused:
        node.call("export", *words, str(tmp_path / "export"))
    assert refused.value.code is Code.NO_MODULES and not (tmp_path / "export").exists()


def test_without_a_store_each_verb_says_where_it_would_be(node: Node, paths: Paths) -> None:
    (paths.root / "var/lib/driverctr").rmdir()
    for words in (["list"], ["verify"], ["why"], ["prune"], ["export", "x"], ["import", "x"]):
        with pytest.raises(DriverError, match="there is no store"):
            node.call(*words)
