"""What the store never gives up, and what is remembered of it."""

import json
from pathlib import Path

import pytest

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.modules import pins
from driverctr.modules.pins import KEPT_RELEASES, Good, Pins
from driverctr.modules.store import Store
from tests.unit.stored import KEY, other, publish
from tests.unit.stored import store as store

LATER = "6.1.0-57-amd64"
PARAMETERS = {"nvidia": ("NVreg_A=1", "NVreg_B=2"), "nvidia-uvm": ()}


def good(number: int, release: str = KEY.kernel_release) -> Good:
    return Good(other(kernel_version=f"#{number}", kernel_release=release), {"nvidia": (f"NVreg_A={number}",)})


def test_what_became_ready_is_remembered_with_its_parameters_the_newest_first(store: Store) -> None:
    assert pins.read(store.folder) == Pins()
    pins.record_good(store.folder, Good(KEY, {"nvidia": ()}))
    pins.record_good(store.folder, good(1))
    pins.record_good(store.folder, Good(KEY, PARAMETERS))
    assert pins.read(store.folder).good == (Good(KEY, PARAMETERS), good(1))


def test_what_is_pinned_is_on_the_disk_when_the_power_is_cut(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[Path, Pins]] = []
    monkeypatch.setattr(files, "sync", lambda *paths: synced.extend((path, pins.read(path)) for path in paths))
    pins.record_good(store.folder, Good(KEY))
    pins.record_good(store.folder, Good(KEY))
    assert synced == [(store.folder, Pins((Good(KEY),)))]


def test_two_are_remembered_for_each_kernel_and_not_for_every_kernel_that_ever_ran(store: Store) -> None:
    for number in range(4):
        pins.record_good(store.folder, good(number))
    assert pins.read(store.folder).good == (good(3), good(2))
    for number in range(KEPT_RELEASES):
        pins.record_good(store.folder, good(number, f"6.1.0-{number}"))
    assert [seen.key.kernel_release for seen in pins.read(store.folder).good] == [
        "6.1.0-3",
        "6.1.0-2",
        "6.1.0-1",
        "6.1.0-0",
    ]


def test_pinned_are_the_running_one_the_last_good_ones_and_what_is_to_run(store: Store) -> None:
    for each in (good(1), good(2), good(3, LATER), good(4, LATER)):
        pins.record_good(store.folder, each)
    coming = other(kernel_release="6.12.0")
    pins.pin_next(store.folder, coming)
    reasons = pins.read(store.folder).reasons()
    assert reasons == {
        good(4, LATER).key.digest: "running",
        good(3, LATER).key.digest: "last good",
        good(2).key.digest: "last good",
        coming.digest: "next kernel 6.12.0",
    }


def test_what_is_pinned_for_a_kernel_is_so_until_that_has_run_or_never_will(store: Store) -> None:
    coming = other(kernel_release=LATER)
    pins.pin_next(store.folder, coming)
    pins.record_good(store.folder, Good(KEY))
    assert pins.read(store.folder).next == {LATER: coming.digest}
    pins.record_good(store.folder, Good(coming))
    assert pins.read(store.folder).next == {}
    pins.pin_next(store.folder, coming)
    pins.unpin_next(store.folder, LATER)
    assert pins.read(store.folder).next == {}


def test_what_is_pinned_for_another_build_of_the_same_kernel_stays_until_that_has_run(store: Store) -> None:
    rebuilt = other(kernel_version="#2", kernel_build_id="")
    publish(store, rebuilt)
    pins.pin_next(store.folder, rebuilt)
    pins.record_good(store.folder, Good(KEY))
    assert pins.read(store.folder).next == {KEY.kernel_release: rebuilt.digest}
    store.prune(0)
    assert store.find(rebuilt).key == rebuilt
    pins.record_good(store.folder, Good(other(kernel_version="#2", driver_version="570.1")))
    assert pins.read(store.folder).next == {}, "that kernel runs now, if with another driver"


def test_a_pin_whose_entry_is_gone_or_fits_no_build_we_know_goes_when_its_kernel_runs(store: Store) -> None:
    for made in (other(kernel_version="#3"), other(kernel_version="")):
        pins.pin_next(store.folder, made)
        pins.record_good(store.folder, Good(KEY))
        assert pins.read(store.folder).next == {}
        publish(store, other(kernel_version=""))


def test_nothing_is_written_where_nothing_changes(store: Store) -> None:
    pins.record_good(store.folder, Good(KEY, PARAMETERS))
    before = (store.folder / "pins.json").stat()
    pins.record_good(store.folder, Good(KEY, PARAMETERS))
    assert (store.folder / "pins.json").stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "[" * 100_000, '{"schema": 1}', '{"schema": 1, "good": [{}], "next": {}}']
)
def test_a_damaged_file_is_told_and_replaced_by_the_next_good_one(store: Store, content: str) -> None:
    store.folder.mkdir(parents=True)
    (store.folder / "pins.json").write_text(content)
    with pytest.raises(DriverError, match=r"pins\.json is not as expected") as refused:
        pins.read(store.folder)
    assert refused.value.code is Code.STORE_UNUSABLE
    pins.record_good(store.folder, Good(KEY))
    assert pins.read(store.folder).good == (Good(KEY),)


def test_one_of_a_newer_driverctr_is_left_alone(store: Store) -> None:
    store.folder.mkdir(parents=True)
    (store.folder / "pins.json").write_text(json.dumps({"schema": 2}))
    with pytest.raises(DriverError, match="written by a newer driverctr; left alone"):
        pins.record_good(store.folder, Good(KEY))
    assert json.loads((store.folder / "pins.json").read_text()) == {"schema": 2}


def test_one_that_others_can_write_is_not_believed(store: Store) -> None:
    pins.record_good(store.folder, Good(KEY))
    (store.folder / "pins.json").chmod(0o666)
    for act in (lambda: pins.read(store.folder), lambda: pins.record_good(store.folder, Good(KEY))):
        with pytest.raises(DriverError, match="can be written by others"):
            act()
