"""What the store gives up: never what somebody pins, builds or takes at that moment, and damaged entries first."""

import time
from pathlib import Path

import pytest

from driverctr.modules import aside, locks, pins
from driverctr.modules.entry import Entry
from driverctr.modules.key import Key
from driverctr.modules.store import Store
from tests.unit.stored import KEY, other, publish, said
from tests.unit.stored import store as store
from tests.unit.test_ahead import Node
from tests.unit.test_ahead import node as node
from tests.unit.test_installed_kernels import NEXT, host
from tests.unit.test_prebuild import Ahead, signals
from tests.unit.test_prebuild import ahead as ahead
from tests.unit.test_store_verbs import Node as VerbsNode
from tests.unit.test_store_verbs import node as verbs_node

__all__ = ["signals", "verbs_node"]


def damage(store: Store, found: Entry) -> int:
    """Have an entry set aside; returns the bytes of it then."""
    (found.folder / "nvidia.ko").write_bytes(b"x" * 1000)
    store.set_aside(found.key, "nvidia.ko is damaged")
    return aside.size(store.folder / "aside")


def test_what_is_pinned_while_others_are_given_up_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    second = other(kernel_version="#2")
    for key in (KEY, second):
        publish(store, key)
    evict = Store._evict

    def pin_meanwhile(self: Store, found: Entry) -> bool:
        pins.pin_next(store.folder, second)
        return evict(self, found)

    monkeypatch.setattr(Store, "_evict", pin_meanwhile)
    assert [gone.key for gone in store.prune(0)] == [KEY]
    assert [left.key for left in store.entries()] == [second]


def test_what_somebody_builds_or_is_about_to_load_stays(store: Store) -> None:
    for key in (KEY, other(kernel_version="#2")):
        publish(store, key)
    with locks.held(store.folder / "locks" / KEY.digest, time.sleep, print):
        assert [gone.key for gone in store.prune(0)] == [other(kernel_version="#2")]
    assert [gone.key for gone in store.prune(0)] == [KEY]


def test_what_was_set_aside_counts_and_goes_first(store: Store) -> None:
    size = damage(store, publish(store))
    assert size > 1000
    found = publish(store, other(kernel_version="#2"))
    assert store.prune(found.size + size) == () and store.aside_size == size
    assert store.prune(found.size + size - 1) == () and store.aside_size == 0
    assert store.find(found.key) == store.entries()[0]


def test_the_verb_frees_it_whatever_the_size_and_the_list_tells_of_it(verbs_node: VerbsNode) -> None:
    store = verbs_node.store
    damage(store, publish(store))
    assert "set aside as damaged: 0 MB, which `driverctr store prune` gives up\n" in verbs_node.call("list")[1]
    assert "given up: what was set aside as damaged, 0 MB\n" in verbs_node.call("prune")[1]
    assert not list((store.folder / "aside").iterdir()) and "aside" not in verbs_node.call("list")[1]


def test_what_was_given_up_before_it_was_pinned_is_made_once_more(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = pins.pin_next
    pruned: list[Entry] = []

    def pin_too_late(folder: Path, made: Key) -> None:
        if not pruned:
            pruned.extend(node.store.prune(0))
        pin(folder, made)

    monkeypatch.setattr(pins, "pin_next", pin_too_late)
    folder = node.update()
    assert folder is not None and folder.is_dir() and len(pruned) == 1 and len(node.asked) == 2
    assert "was given up before it was pinned; once more" in node.log
    assert pins.read(node.store.folder).next == {NEXT: folder.name}


def test_modules_that_went_after_they_were_made_are_had_again(ahead: Ahead) -> None:
    host(ahead.paths.root, NEXT)
    store = Store.open(ahead.paths.root / "store", ahead.prebuild.log)
    made = publish(store, other(kernel_release=NEXT))
    ahead.update("exit 0")
    ahead.look()
    pins.pin_next(store.folder, made.key)
    ahead.look()
    assert ahead.built == [NEXT], "all is there"
    damage(store, made)
    ahead.update("echo again")
    for _ in range(3):
        ahead.look()
    assert ahead.built == [NEXT, NEXT], "where that does not help, there is a pause"
    assert ahead.told[NEXT]["reason"] == "it ended well, and what it made is not in the store"
    assert "is set aside in" in said(store.log)
