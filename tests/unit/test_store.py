"""The store: what is published is found whole by its key, what is damaged is named and replaced, what is old goes."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import elf, known_parameters, pins
from driverctr.modules.entry import KEY as KEY_FILE
from driverctr.modules.entry import Refused
from driverctr.modules.key import Key
from driverctr.modules.ondisk import verify
from driverctr.modules.pins import Good
from driverctr.modules.store import Store, check, locate
from driverctr.paths import Paths
from tests.unit.conftest import make_tree
from tests.unit.stored import KEY, NAMES, PROVENANCE, make_draft, other, publish, said
from tests.unit.stored import store as store

LATER = "6.1.0-57-amd64"


def refusal(store: Store, key: Key = KEY) -> str:
    with pytest.raises(DriverError) as refused:
        store.find(key)
    assert refused.value.code is Code.NO_MODULES
    return refused.value.message


def test_what_is_published_is_found_by_its_key_with_all_that_is_known_of_it(store: Store) -> None:
    published = publish(store)
    found = store.find(KEY)
    assert found == published and found.provenance == PROVENANCE
    assert found.folder == store.folder / "entries" / KEY.digest
    assert sorted(path.name for path in found.folder.iterdir()) == sorted(
        [*(f"{name}.ko" for name in NAMES), "build.log", "key.json", "manifest.json", "provenance.json"]
    )
    verify(found.module_set, meanwhile=lambda: None)
    assert found.size == sum(path.stat().st_size for path in found.folder.iterdir())
    assert not list((store.folder / "stage").iterdir()) and not list((store.folder / "locks").iterdir())


def test_the_manifest_tells_parameters_so_that_no_module_is_read_and_an_older_one_asks_the_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish(store).folder / "manifest.json"
    assert known_parameters(store.find(KEY).module_set.modules["nvidia"]) == {"NVreg_A": "int"}
    document = json.loads(file.read_text())
    for module in document["modules"].values():
        assert module.pop("parameters") == {"NVreg_A": "int"}
    file.write_text(json.dumps(document))
    older = store.find(KEY).module_set.modules["nvidia"]
    assert older.parameters == {} and known_parameters(older) == {"NVreg_A": "int"}
    monkeypatch.setattr(elf, "read", lambda path: pytest.fail("read"))
    assert known_parameters(replace(older, parameters={"NVreg_B": "int"})) == {"NVreg_B": "int"}


def test_an_entry_made_before_its_kernel_ran_is_found_by_the_exact_key(store: Store) -> None:
    before = other(kernel_build_id="")
    publish(store, before)
    assert store.find(KEY).key == before
    exact = publish(store)
    assert store.find(KEY) == exact


def test_a_miss_names_what_differs_from_the_nearest_entry(store: Store) -> None:
    assert refusal(store).endswith("has no open 535.261.03 for 6.1.0-56-amd64; it is empty")
    publish(store, other(driver_version="535.1", kernel_release=LATER, kernel_version="#2"))
    publish(store, other(kernel_version="#1 SMP Debian 6.1.192-1"))
    assert "differs in kernel_version: wanted #1 SMP Debian 6.1.192-2, there #1 SMP Debian 6.1.192-1" in refusal(store)
    assert "differs in driver_version: wanted 535.2, there 535.1" in refusal(
        store, other(driver_version="535.2", kernel_release=LATER, kernel_version="#2")
    )


def test_reading_makes_and_changes_nothing(store: Store) -> None:
    assert "it is empty" in refusal(store)
    assert store.entries() == () and not store.folder.exists()


def test_the_first_publisher_wins_and_the_second_takes_what_is_there(store: Store) -> None:
    first = publish(store, content="one")
    assert publish(store, content="two").module_set == first.module_set
    check(store.find(KEY).folder)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "key", "manifest", "link", "writable", "folder"])
def test_a_damaged_entry_is_named_set_aside_and_replaced_by_the_next_build(
    store: Store, log: Log, tmp_path: Path, damage: str
) -> None:
    folder = publish(store).folder
    file = folder / "nvidia.ko"
    match damage:
        case "changed":
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        case "cut":
            file.write_bytes(file.read_bytes()[:-1])
        case "gone":
            file.unlink()
        case "key":
            file = folder / "key.json"
            file.write_text(other(kernel_version="#2").document)
        case "manifest":
            file = folder / "manifest.json"
            file.write_text("[" * 100_000)
        case "link":
            shutil.copy(file, tmp_path / "planted.ko")
            file.unlink()
            file.symlink_to(tmp_path / "planted.ko")
        case "writable":
            file.chmod(0o664)
        case "folder":
            file = folder
            file.chmod(0o777)
    with pytest.raises(DriverError) as refused:
        verify(store.find(KEY).module_set, meanwhile=lambda: None)
    assert refused.value.code is Code.NO_MODULES and str(file) in refused.value.message
    check(publish(store).folder)
    aside = store.folder / "aside" / f"{KEY.digest}-1"
    assert str(file) in (aside / "reason").read_text()
    assert f"{KEY.digest[:12]} is set aside in {aside}: {file}" in said(log)


def test_a_link_in_an_entrys_place_is_not_followed_and_goes(store: Store, tmp_path: Path) -> None:
    elsewhere = publish(store).folder.rename(tmp_path / KEY.digest)
    (store.folder / "entries" / KEY.digest).symlink_to(elsewhere)
    assert "is a symbolic link" in refusal(store)
    check(publish(store).folder)
    assert (store.folder / "aside" / f"{KEY.digest}-1").is_symlink() and not (elsewhere / "reason").exists()


def test_no_more_than_the_last_damaged_entries_are_kept(store: Store, tmp_path: Path) -> None:
    (store.folder / "aside").mkdir(parents=True)
    (store.folder / "aside/foreign").touch()
    for number in range(5):
        (publish(store, content=str(number)).folder / "nvidia.ko").unlink()
        store.set_aside(KEY, "nvidia.ko is missing")
    kept = sorted(path.name for path in (store.folder / "aside").iterdir())
    assert kept == [f"{KEY.digest}-{number}" for number in (3, 4, 5)]
    store.set_aside(KEY, "it is gone already")
    publish(store)
    store.set_aside(KEY, "it was damaged, and somebody replaced it")
    assert store.find(KEY)


@pytest.mark.parametrize("name", ["key.json", "manifest.json"])
def test_an_entry_of_a_newer_driverctr_is_left_alone(store: Store, name: str) -> None:
    file = publish(store).folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 2}))
    assert refusal(store) == f"{file} was written by a newer driverctr; left alone"
    with pytest.raises(DriverError, match="left alone") as refused:
        publish(store)
    assert refused.value.code is Code.STORE_UNUSABLE
    assert file.exists() and store.prune(0) == ()
    assert store.look() == (Refused(file.parent, refusal(store), newer=True),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nvidia": {"file": "../nvidia.ko"}}, "with file name '../nvidia.ko'"),
        ({"nvidia": {"file": "/etc/nvidia.ko"}}, "with file name '/etc/nvidia.ko'"),
        ({"nvidia": {"sha256": "x"}}, "otherwise than by text and a SHA-256"),
        ({"nvidia": {"size": "7"}}, "has size '7'"),
        ({"nvidia": {"size": -1}}, "has size -1"),
        ({"nvidia": {"build_id": None}}, "otherwise than by text and a SHA-256"),
        ({"nvidia": {"parameters": {"NVreg_A": 1}}}, "otherwise than by text and a SHA-256"),
        ({"nvidia": {"vermagic": "6.12.0 SMP"}}, "nvidia was built for kernel 6.12.0"),
        ({"../nvidia": {"file": "../nvidia.ko"}}, "module '../nvidia'"),
        ({"..": {"file": "..ko"}}, "module '..'"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(
    store: Store, change: dict[str, dict[str, object]], reason: str
) -> None:
    file = publish(store).folder / "manifest.json"
    document = json.loads(file.read_text())
    for name, values in change.items():
        document["modules"][name] = {**document["modules"]["nvidia"], **values}
    file.write_text(json.dumps(document))
    assert reason in refusal(store)


def test_pipes_and_folders_among_the_files_are_refused_without_waiting_for_them(store: Store) -> None:
    folder = publish(store).folder
    (folder / KEY_FILE).unlink()
    os.mkfifo(folder / KEY_FILE)
    assert "is not a regular file" in refusal(store)


def test_an_entry_that_vanishes_while_it_is_read_is_a_miss(store: Store) -> None:
    found = publish(store)
    with (found.folder / "nvidia.ko").open("rb") as open_file:
        assert [gone.key for gone in store.prune(0)] == [KEY]
        assert elf.MAGIC_64_LITTLE in open_file.read()
    with pytest.raises(DriverError) as refused:
        verify(found.module_set, meanwhile=lambda: None)
    assert refused.value.code is Code.NO_MODULES
    assert not list((store.folder / "stage").iterdir())


def test_what_was_used_least_recently_goes_and_what_is_pinned_stays(store: Store) -> None:
    keys = [other(kernel_version=f"#{number}") for number in range(5)]
    size = max(publish(store, key).size for key in keys)
    store.touch(keys[0])
    pins.record_good(store.folder, Good(keys[1]))
    pins.pin_next(store.folder, replace(keys[2], kernel_release=LATER))
    assert [gone.key for gone in store.prune(3 * size)] == keys[2:4]
    assert {found.key for found in store.entries()} == {keys[0], keys[1], keys[4]}
    assert [gone.key for gone in store.prune(0)] == [keys[4], keys[0]]


def test_publishing_makes_room_but_not_of_what_it_published(tmp_path: Path, log: Log) -> None:
    store = Store.open(tmp_path / "store", log, max_bytes=1)
    publish(store)
    publish(store, other(kernel_version="#2"))
    assert [found.key.kernel_version for found in store.entries()] == ["#2"]
    assert "was used least recently and is given up" in said(log)


def test_a_clock_that_jumps_back_does_not_make_the_newest_look_old(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [other(kernel_version=f"#{number}") for number in range(3)]
    publish(store, keys[0])
    publish(store, keys[1])
    past = time.time_ns() - 365 * 86400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: past)
    publish(store, keys[2])
    store.touch(keys[0])
    store.touch(keys[0])
    assert [found.key for found in store.entries()] == [keys[0], keys[2], keys[1]]
    assert [gone.key for gone in store.prune(store.entries()[0].size)] == [keys[1], keys[2]]


@pytest.mark.parametrize("name", [".", "entries", "locks", "stage"])
@pytest.mark.parametrize("fault", ["writable", "link", "file", "owner"])
def test_a_store_that_others_could_have_written_is_refused(
    store: Store, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    publish(store)
    folder = store.folder / name
    match fault:
        case "writable":
            folder.chmod(0o775)
        case "owner":
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
        case _:
            moved = folder.rename(tmp_path / "moved")
            folder.touch() if fault == "file" else folder.symlink_to(moved)
    with pytest.raises(DriverError) as refused:
        Store.open(store.folder, log)
    assert refused.value.code is Code.STORE_UNUSABLE and refused.value.remedy
    expected = {"writable": "mode 0775", "link": "symbolic link", "file": "not a folder", "owner": "not to user 12345"}
    assert expected[fault] in refused.value.message and str(folder if fault != "owner" else "") in refused.value.message


def test_a_loose_umask_makes_no_folder_that_we_would_refuse_ourselves(store: Store) -> None:
    former = os.umask(0)
    try:
        publish(store)
    finally:
        os.umask(former)
    check(Store.open(store.folder, store.log).find(KEY).folder)


def test_the_store_is_where_the_setting_says_if_that_folder_or_its_own_is_there(paths: Paths) -> None:
    config = settings.load({})
    with pytest.raises(DriverError, match=r"there is no store: neither .*/var/lib/driverctr/store nor") as refused:
        locate(paths, config)
    assert refused.value.code is Code.NO_MODULES and "Mount a folder" in refused.value.remedy
    make_tree(paths.root, {"var/lib/driverctr": None})
    assert locate(paths, config) == paths.root / "var/lib/driverctr/store"


def test_on_the_host_it_lies_in_the_hosts_root_whose_links_are_its_own(paths: Paths, log: Log) -> None:
    config = settings.load({"STORE_ON_HOST": "true"})
    with pytest.raises(DriverError, match="STORE_ON_HOST=true, but the host's root") as refused:
        locate(paths, config)
    assert refused.value.code is Code.STORE_UNUSABLE and "hostPID" in refused.value.remedy
    host = "proc/1/root"
    make_tree(
        paths.root,
        {
            "proc/1/ns/mnt": "-> mnt:[1]",
            "proc/self/ns/mnt": "-> mnt:[2]",
            f"{host}/lib/modules": None,
            f"{host}/data/lib": None,
            f"{host}/var": "-> /data",
        },
    )
    folder = locate(paths, config)
    assert folder == paths.root / host / "data/lib/driverctr/store"
    publish(Store.open(folder, log))
    assert (paths.root / host / "data/lib/driverctr/store/entries" / KEY.digest).is_dir()


def test_a_draft_that_is_gone_publishes_nothing(store: Store, tmp_path: Path) -> None:
    draft = make_draft(tmp_path / "draft")
    draft.modules["nvidia-uvm"].file.unlink()
    with pytest.raises(DriverError, match=r"nvidia-uvm\.ko"):
        store.publish(KEY, draft, None, {})
    assert store.look() == () and not list((store.folder / "stage").iterdir())
