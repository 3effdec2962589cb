"""Userspaces in the store: whole or not at all, each content once, hashed before use, given up with their modules."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driverctr import config as settings
from driverctr import keeper
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import ModuleSet, Source, pins, userspaces
from driverctr.modules.loaded import Build
from driverctr.modules.pins import Good
from driverctr.modules.store import Store
from driverctr.modules.userspaces import Userspaces
from driverctr.paths import Paths
from driverctr.steps import Gained, Tools
from driverctr.userspace import listing
from driverctr.userspace.listing import Item, Listing
from driverctr.verbs import make_tools
from tests.unit.conftest import make_tree
from tests.unit.stored import KEY, other, said
from tests.unit.stored import store as store
from tests.unit.test_store_verbs import Node
from tests.unit.test_store_verbs import node as node

NEW, OLD, PLATFORM = "535.261.03", "470.1", "debian-amd64"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def make_root(root: Path, version: str) -> Listing:
    """A root with a small userspace, and the list of it; firmware is the same in all versions."""
    texts = {
        f"{LIBRARIES}/libnvidia-ml.so.{version}": f"ml {version}",
        f"{LIBRARIES}/libcuda.so.{version}": f"cuda {version}",
        "usr/bin/nvidia-smi": f"smi {version}",
        f"usr/lib/firmware/nvidia/{version}/gsp_ga10x.bin": "gsp",
    }
    links = {f"{LIBRARIES}/libnvidia-ml.so.1": f"libnvidia-ml.so.{version}"}
    make_tree(root, {**texts, **{path: f"-> {link}" for path, link in links.items()}})
    (root / "usr/bin/nvidia-smi").chmod(0o4755)
    items = [
        Item(path, "", hashlib.sha256(text.encode()).hexdigest(), len(text), (root / path).stat().st_mode & 0o7777)
        for path, text in texts.items()
    ]
    found = Listing(version, PLATFORM, tuple(items + [Item(path, link, mode=0o777) for path, link in links.items()]))
    make_tree(root, {str(listing.LISTING): found.document})
    return found


@pytest.fixture
def kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> Userspaces:
    """A store on a disk with room."""
    monkeypatch.setattr(userspaces, "SPARE", 0)
    return Userspaces(store)


def keep(kept: Userspaces, root: Path, version: str) -> Listing:
    found = make_root(root, version)
    assert kept.keep(found, root, lambda: None)
    return found


def test_a_listing_reads_as_it_was_written(tmp_path: Path) -> None:
    assert make_root(tmp_path, NEW) == listing.read(tmp_path)


BAD_ITEMS = [
    {"path": "../etc/passwd"},
    {"path": "/etc/passwd"},
    {"path": "usr/../../etc"},
    {"path": ""},
    {"path": "."},
    {"path": "usr/lib/a", "link": "/etc/passwd"},
    {"path": "usr/lib/a", "link": "../../../etc"},
    {"sha256": "../../x"},
    {"sha256": 7},
    {"size": -1},
    {"size": "big"},
    {"mode": 0o100644},
    {"mode": None},
]


@pytest.mark.parametrize("change", BAD_ITEMS)
def test_a_listing_that_leads_out_of_the_root_or_is_not_ours_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    document = json.loads(make_root(tmp_path, NEW).document)
    document["items"][0] |= change
    (tmp_path / listing.LISTING).write_text(json.dumps(document))
    with pytest.raises(DriverError, match=r"userspace\.json"):
        listing.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "driver_version": "x"}'])
def test_nor_is_any_other_document_one(tmp_path: Path, text: str) -> None:
    make_tree(tmp_path, {str(listing.LISTING): text})
    with pytest.raises(DriverError) as refused:
        listing.read(tmp_path)
    assert refused.value.code is Code.NO_MODULES and refused.value.remedy


def test_what_is_kept_is_found_whole_and_kept_once(kept: Userspaces, tmp_path: Path) -> None:
    found = keep(kept, tmp_path / "root", NEW)
    assert kept.find(NEW, PLATFORM) == found
    shutil.rmtree(tmp_path / "root/usr")
    assert not kept.keep(found, tmp_path / "root", lambda: None), "nothing is read where all is there"
    assert staged(kept) == []
    assert {path.stat().st_mode & 0o777 for path in (kept.folder / "files").iterdir()} == {0o644}


def test_a_content_that_two_versions_have_is_there_once(kept: Userspaces, tmp_path: Path) -> None:
    one, two = keep(kept, tmp_path / "one", NEW), keep(kept, tmp_path / "two", OLD)
    assert len(list((kept.folder / "files").iterdir())) == len({*one.files, *two.files}) == 7
    assert kept.size == one.size + two.size - len("gsp")
    assert userspaces.shares(kept.all()) == {NEW: one.size - len("gsp"), OLD: two.size - len("gsp")}


def test_nothing_of_a_version_that_was_never_kept(kept: Userspaces) -> None:
    for version, said_of in ((OLD, OLD), ("", "a driver of no version"), ("../../etc/x", "../../etc/x")):
        with pytest.raises(DriverError) as refused:
            kept.find(version, PLATFORM)
        assert refused.value.message == f"no userspace of {said_of}"


def staged(kept: Userspaces) -> list[Path]:
    """What is left of copies in the making."""
    return list((kept.store.folder / "stage").iterdir())


def damage_size(kept: Userspaces, file: Path) -> None:
    file.write_text("longer than it was")


def damage_owner(kept: Userspaces, file: Path) -> None:
    file.chmod(0o666)


def damage_kind(kept: Userspaces, file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def lose(kept: Userspaces, file: Path) -> None:
    file.unlink()


def damage_listing(kept: Userspaces, file: Path) -> None:
    (kept.folder / f"{NEW}_{PLATFORM}.json").write_text("{")


def swap_listings(kept: Userspaces, file: Path) -> None:
    path = kept.folder / f"{NEW}_{PLATFORM}.json"
    path.write_text(path.read_text().replace(NEW, OLD))


@pytest.mark.parametrize("act", [damage_size, damage_owner, damage_kind, lose, damage_listing, swap_listings])
def test_what_is_not_whole_or_not_roots_alone_is_not_there_and_kept_anew(
    kept: Userspaces, tmp_path: Path, act: Any
) -> None:
    found = keep(kept, tmp_path / "root", NEW)
    act(kept, kept.file(found.items[0]))
    with pytest.raises(DriverError, match=f"no userspace of {NEW}: "):
        kept.find(NEW, PLATFORM)
    assert kept.keep(found, tmp_path / "root", lambda: None) and kept.find(NEW, PLATFORM) == found


def test_a_file_that_is_not_the_one_listed_is_not_kept_and_nothing_else_either(
    kept: Userspaces, tmp_path: Path
) -> None:
    found = make_root(tmp_path / "root", NEW)
    (tmp_path / "root/usr/bin/nvidia-smi").write_text("not the one")
    with pytest.raises(DriverError, match="is not the usr/bin/nvidia-smi that was listed"):
        kept.keep(found, tmp_path / "root", lambda: None)
    assert not kept.folder.exists() and staged(kept) == []


def test_a_disk_without_room_is_left_alone(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userspaces, "SPARE", 1 << 60)
    found = make_root(tmp_path / "root", NEW)
    with pytest.raises(DriverError, match="stay so") as refused:
        Userspaces(store).keep(found, tmp_path / "root", lambda: None)
    assert refused.value.code is Code.NO_SPACE and not Userspaces(store).folder.exists()


def test_what_nothing_pins_is_given_up_but_not_what_it_shares(kept: Userspaces, tmp_path: Path) -> None:
    assert kept.prune(()) == ()
    one = keep(kept, tmp_path / "one", NEW)
    keep(kept, tmp_path / "two", OLD)
    assert kept.prune({NEW}) == (OLD,)
    assert kept.find(NEW, PLATFORM) == one and len(list((kept.folder / "files").iterdir())) == len(one.files)
    assert kept.prune({NEW}) == ()


@pytest.mark.parametrize("text", ["", '{"schema": 2}'])
def test_where_a_listing_cannot_be_read_no_content_goes(kept: Userspaces, tmp_path: Path, text: str) -> None:
    keep(kept, tmp_path / "one", NEW)
    keep(kept, tmp_path / "two", OLD)
    contents = sorted((kept.folder / "files").iterdir())
    place = kept.folder / f"{NEW}_{PLATFORM}.json"
    whole = place.read_text()
    place.write_text(text)
    assert kept.prune({NEW}) == (OLD,) and sorted((kept.folder / "files").iterdir()) == contents
    place.write_text(whole)
    assert kept.prune({NEW}) == () and kept.find(NEW, PLATFORM).document == whole
    assert len(list((kept.folder / "files").iterdir())) == 4


def test_a_lost_content_is_no_reason_to_give_up_the_others(kept: Userspaces, tmp_path: Path) -> None:
    found = keep(kept, tmp_path / "one", NEW)
    kept.file(found.items[0]).unlink()
    assert kept.prune({NEW}) == () and len(list((kept.folder / "files").iterdir())) == 3


def test_what_a_newer_driverctr_listed_is_left_alone(kept: Userspaces, tmp_path: Path) -> None:
    found = keep(kept, tmp_path / "root", NEW)
    place = kept.folder / f"{NEW}_{PLATFORM}.json"
    place.write_text('{"schema": 2}')
    with pytest.raises(DriverError, match="written by a newer driverctr; left alone") as refused:
        kept.keep(found, tmp_path / "root", lambda: None)
    assert refused.value.code is Code.STORE_UNUSABLE
    assert kept.prune(()) == () and place.read_text() == '{"schema": 2}'


def test_every_file_is_hashed_by_verify(kept: Userspaces, tmp_path: Path) -> None:
    found = keep(kept, tmp_path / "root", NEW)
    assert kept.verify(*kept.all()) == ()
    kept.file(found.items[0]).write_text("x" * found.items[0].size)
    (damage,) = kept.verify(*kept.all())
    assert f"is not the {found.items[0].path} of {NEW}" in damage and kept.all() == ()


def test_the_store_verbs_tell_of_it(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userspaces, "SPARE", 0)
    kept = Userspaces(node.store)
    for version in (NEW, OLD):
        keep(kept, tmp_path / version, version)
    pins.record_good(node.store.folder, Good(replace(KEY, driver_version=OLD)))
    status, text = node.call("list")
    assert status == 0 and f"userspace of {OLD}: 0 MB" in text
    document = json.loads(node.call("list", "--json")[1])
    assert [(one["driver_version"], one["pinned"]) for one in document["userspaces"]] == [(OLD, True), (NEW, False)]
    assert document["userspace_size"] == kept.size
    assert f"given up: the userspace of {NEW}" in node.call("prune")[1]
    kept.file(kept.find(OLD, PLATFORM).items[0]).unlink()
    assert kept.all() == () and node.call("verify")[0] == 0, "what is not whole is not there"


@pytest.fixture
def tools(paths: Paths, log: Log) -> Tools:
    """A start that keeps what serves, its root exported."""
    make_root(paths.root, NEW)
    make_root(paths.driver_root, NEW)
    return make_tools(settings.load({"KEEP_USERSPACE": "true"}), log, paths)


SERVES = Gained(build=Build(ModuleSet(Path("/set"), "", "", NEW, "open", {}), KEY), source=Source.STORE)


def wait_and_end(tools: Tools, gained: Gained, store: Store | None) -> None:
    """A wait that lasts until the copy is made."""
    with keeper.keeping(tools, gained, store):
        for thread in threading.enumerate():
            if thread.name == "keeper":
                thread.join()


def test_what_serves_is_kept_beside_the_wait_and_what_is_pinned_no_more_goes(
    tools: Tools, kept: Userspaces, tmp_path: Path, log: Log
) -> None:
    keep(kept, tmp_path / "old", OLD)
    pins.record_good(kept.store.folder, Good(KEY))
    wait_and_end(tools, SERVES, kept.store)
    assert [one.driver_version for one in kept.all()] == [NEW]
    assert f"the userspace of {OLD} is given up" in said(log) and f"the userspace of {NEW}, 0 MB, is kept" in said(log)
    wait_and_end(tools, SERVES, kept.store)
    assert said(log).count("is kept") == 1


def test_what_served_last_is_kept_as_long_as_it_can_return(tools: Tools, kept: Userspaces, tmp_path: Path) -> None:
    keep(kept, tmp_path / "old", OLD)
    for key in (other(driver_version=OLD), KEY):
        pins.record_good(kept.store.folder, Good(key))
    wait_and_end(tools, SERVES, kept.store)
    assert [one.driver_version for one in kept.all()] == [OLD, NEW]


@pytest.mark.parametrize(
    ("gained", "told"),
    [(replace(SERVES, source=Source.LAST_GOOD), ""), (replace(SERVES, build=Build(SERVES.module_set)), "do not come")],
)
def test_what_could_not_return_is_not_kept(tools: Tools, kept: Userspaces, log: Log, gained: Gained, told: str) -> None:
    wait_and_end(tools, gained, kept.store)
    assert not kept.folder.exists() and told in said(log)


def test_without_a_store_it_is_said_and_without_the_setting_nothing_is(
    tools: Tools, kept: Userspaces, log: Log
) -> None:
    wait_and_end(replace(tools, config=settings.load({})), SERVES, kept.store)
    assert said(log) == "" and not kept.folder.exists()
    wait_and_end(tools, SERVES, None)
    assert "there is no store" in said(log)


def test_a_full_disk_is_told_and_ends_nothing(
    tools: Tools, kept: Userspaces, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userspaces, "SPARE", 1 << 60)
    wait_and_end(tools, SERVES, kept.store)
    assert "the userspace is not kept" in said(log) and "MB are free" in said(log)


def test_a_stop_does_not_wait_for_the_copy(
    tools: Tools, kept: Userspaces, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def endless(source: Path, target: Path, item: Item, go_on: Callable[[], None]) -> None:
        begun.set()
        while True:
            go_on()
            time.sleep(0.01)

    monkeypatch.setattr(userspaces, "copy", endless)
    with keeper.keeping(tools, SERVES, kept.store):
        assert begun.wait(10)
    assert "not kept yet" in said(log) and kept.all() == () and staged(kept) == []
