"""The store among many: whoever is killed, waits, or meets a filesystem that refuses, nobody sees half an entry."""

import errno
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from driverctr.errors import Code, DriverError, Stopped
from driverctr.log import Log
from driverctr.modules import locks, pins
from driverctr.modules.entry import Entry
from driverctr.modules.pins import Good
from driverctr.modules.store import Store, check
from tests.unit.stored import KEY, make_draft, other, publish, said
from tests.unit.stored import store as store

ACTS = {f"os.{name}" for name in ("mkdir", "rename", "remove", "rmdir", "chmod", "utime", "truncate")}
"""Audit events (Python's table of them) of what changes files, besides `open`."""
WRITING = os.O_CREAT | os.O_WRONLY | os.O_RDWR

SLEEPS = 0.01


def forked(act: Callable[[], object]) -> int:
    """A process that does something, and exits 0 if it came to its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        except BaseException as error:  # noqa: BLE001  # told by the status
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_before(number: int, act: Callable[[], object]) -> bool:
    """Run an act in a process that is killed before the n-th change it makes to files; False if it makes fewer."""

    def run() -> None:
        left = number

        def hook(event: str, words: tuple[Any, ...]) -> None:
            nonlocal left
            if event in ACTS or (event == "open" and words[2] & WRITING):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        act()

    return status_of(forked(run)) == -signal.SIGKILL


def is_whole(store: Store) -> None:
    for seen in store.look():
        assert isinstance(seen, Entry), seen
        check(seen.folder)


@pytest.mark.parametrize("act", ["publish", "replace", "prune", "pin"])
def test_a_process_killed_at_any_moment_leaves_nothing_half_done_and_nothing_behind(
    store: Store, tmp_path: Path, act: str
) -> None:
    draft, more = make_draft(tmp_path / "one"), make_draft(tmp_path / "two", content="two")

    acts: dict[str, Callable[[], object]] = {
        "publish": lambda: store.publish(KEY, draft, None, {}),
        "replace": lambda: store.publish(KEY, more, None, {}),
        "prune": lambda: store.prune(0),
        "pin": lambda: pins.record_good(store.folder, Good(KEY)),
    }
    number = 0
    killed = True
    while killed:
        number += 1
        if act != "publish":
            store.publish(KEY, draft, None, {})
        if act == "replace":
            (store.find(KEY).folder / "nvidia.ko").write_bytes(b"")
        killed = killed_before(number, acts[act])
        if act != "replace":
            is_whole(store)
        assert pins.read(store.folder) in (pins.Pins(), pins.Pins((Good(KEY),)))
        if act == "pin":
            pins.pin_next(store.folder, other(kernel_release="6.12.0"))
            assert sorted(path.name for path in store.folder.iterdir() if path.is_file()) == ["pins.json"]
        check(store.publish(KEY, draft, None, {}).folder)
        is_whole(store)
        assert not list((store.folder / "stage").iterdir())
        if act == "publish":
            shutil.rmtree(store.folder)
        (store.folder / "pins.json").unlink(missing_ok=True)
    assert number > 5


def changed(folder: Path) -> int:
    """Its change time in nanoseconds; 0 if it is not there."""
    try:
        return folder.stat().st_ctime_ns
    except FileNotFoundError:
        return 0


def test_many_publishers_readers_and_evictors_see_whole_entries_or_none(store: Store, tmp_path: Path) -> None:
    deadline = time.monotonic() + 3
    keys = [KEY, other(kernel_version="#2")]
    drafts = [make_draft(tmp_path / f"draft-{number}", content=str(number)) for number in range(2)]

    def publishing(number: int) -> None:
        while time.monotonic() < deadline:
            for key in keys:
                with store.building(key, lambda seconds: time.sleep(SLEEPS)):
                    check_if_there(store.publish(key, drafts[number], None, {}))

    def check_if_there(found: Entry) -> None:
        """Whole, or taken away, or another one's since it was found: the change time of a folder tells that."""
        former = changed(found.folder)
        try:
            check(found.folder)
        except DriverError as error:
            assert changed(found.folder) != former or not former, error

    def reading() -> None:
        seen = 0
        while time.monotonic() < deadline:
            try:
                check_if_there(store.find(KEY))
                seen += 1
            except DriverError as error:
                assert "differs in" in error.message or "empty" in error.message or "No such file" in error.message
        assert seen

    def evicting() -> None:
        while time.monotonic() < deadline:
            store.prune(0)
            time.sleep(5 * SLEEPS)

    acts = [lambda: publishing(0), lambda: publishing(1), reading, reading, evicting]
    assert [status_of(pid) for pid in [forked(act) for act in acts]] == [0] * len(acts)
    is_whole(store)
    publish(store)
    assert not list((store.folder / "stage").iterdir()) and not list((store.folder / "aside").iterdir())


def test_the_second_builder_of_a_key_waits_is_told_for_whom_and_finds_what_the_first_made(
    store: Store, log: Log, tmp_path: Path
) -> None:
    go = tmp_path / "go"

    def first() -> None:
        with store.building(KEY, time.sleep):
            go.touch()
            time.sleep(0.3)
            publish(store)

    pid = forked(first)
    while not go.exists():
        time.sleep(SLEEPS)
    with store.building(KEY, lambda seconds: time.sleep(SLEEPS)):
        check(store.find(KEY).folder)
    assert status_of(pid) == 0
    assert f"open 535.261.03 for 6.1.0-56-amd64 is being built by pid {pid} of {os.uname().nodename}" in said(log)
    assert said(log).count("waiting for it") == 1 and not list((store.folder / "locks").iterdir())


def test_who_waits_can_be_stopped_and_the_builder_goes_on(store: Store, log: Log) -> None:
    def stopped(seconds: float) -> NoReturn:
        raise Stopped(signal.SIGTERM)

    with store.building(KEY, time.sleep):
        with pytest.raises(Stopped), Store(store.folder, log).building(KEY, stopped):
            pytest.fail("two build it")
        publish(store)
    with store.building(KEY, stopped):
        check(store.find(KEY).folder)


def test_a_builder_that_is_killed_keeps_nobody_waiting(store: Store) -> None:
    def die() -> None:
        with store.building(KEY, time.sleep), store.stage() as stage:
            (stage / "nvidia.ko").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert status_of(forked(die)) == -signal.SIGKILL
    assert len(list((store.folder / "stage").iterdir())) == 1

    def fail(seconds: float) -> NoReturn:
        pytest.fail("waited")

    with store.building(KEY, fail):
        publish(store)
    assert not list((store.folder / "stage").iterdir())


@pytest.mark.timeout(20)
def test_who_keeps_what_is_held_for_moments_is_named_and_not_waited_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    monkeypatch.setattr(locks, "MOMENTS", 0.2)
    acts: dict[str, Callable[[], object]] = {
        "change": lambda: publish(store, other(kernel_version="#2")),
        "pins": lambda: pins.pin_next(store.folder, KEY),
    }
    for name, act in acts.items():
        holder = rf"{store.folder}/locks/{name} has been held for 0.2 s by pid {os.getpid()} of "
        with locks.held(store.folder / "locks" / name, time.sleep, print):
            with pytest.raises(DriverError, match=holder) as refused:
                act()
            assert refused.value.code is Code.STORE_UNUSABLE and refused.value.remedy
        act()


def test_two_keys_are_built_at_once(store: Store) -> None:
    with store.building(KEY, time.sleep), store.building(other(kernel_version="#2"), time.sleep):
        publish(store)


def raising(number: int, *, when: Callable[..., bool] = lambda *words: True, instead: Callable[..., object]) -> object:
    """A call of the system's that fails as a filesystem makes it fail."""

    def act(*words: object, **named: object) -> object:
        if when(*words):
            raise OSError(number, os.strerror(number), str([*words, *named.values()][0]))
        return instead(*words, **named)

    return act


def refuses_to_publish(store: Store, tmp_path: Path) -> DriverError:
    """The refusal; and neither the draft nor the store has lost anything."""
    draft = make_draft(tmp_path / "draft")
    before = store.look()
    with pytest.raises(DriverError) as refused, store.building(KEY, time.sleep):
        store.publish(KEY, draft, draft.folder / "log", {})
    assert all(module.file.is_file() for module in draft.modules.values()) and store.look() == before
    assert str(store.folder) in refused.value.message and refused.value.remedy
    return refused.value


def test_a_filesystem_without_locks_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(errno.ENOLCK, instead=fcntl.flock))
    refused = refuses_to_publish(store, tmp_path)
    assert refused.code is Code.STORE_UNUSABLE and "has no locks (flock: No locks available)" in refused.message
    with pytest.raises(DriverError, match="has no locks"):
        pins.record_good(store.folder, Good(KEY))


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP])
def test_a_filesystem_without_rename_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "rename", raising(number, instead=os.rename))
    refused = refuses_to_publish(store, tmp_path)
    assert refused.code is Code.STORE_UNUSABLE and os.strerror(number) in refused.message
    assert "renames" in refused.remedy and not list((store.folder / "stage").iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["copyfile", "mkdtemp", "fsync"])
def test_a_full_disk_is_no_space_and_nothing_is_half_published(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    module = {"copyfile": "shutil", "mkdtemp": "tempfile", "fsync": "os"}[name]
    publish(store, other(kernel_version="#2"))
    real = getattr(sys.modules[module], name)
    monkeypatch.setattr(sys.modules[module], name, raising(number, instead=real))
    assert refuses_to_publish(store, tmp_path).code is Code.NO_SPACE
    monkeypatch.undo()
    check(publish(store).folder)
    assert not list((store.folder / "stage").iterdir())


def test_a_store_that_is_read_only_is_read_and_refuses_all_else(
    store: Store, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = publish(store)
    real_open, real_rename, real_mkdir = os.open, os.rename, os.mkdir

    def writes(path: object, flags: int = 0, *words: object) -> bool:
        return bool(flags & WRITING)

    def is_new_inside(path: str, *words: object) -> bool:
        return Path(path).is_relative_to(store.folder) and not Path(path).exists()

    monkeypatch.setattr(os, "open", raising(errno.EROFS, when=writes, instead=real_open))
    monkeypatch.setattr(os, "rename", raising(errno.EROFS, instead=real_rename))
    monkeypatch.setattr(os, "utime", raising(errno.EROFS, instead=os.utime))
    monkeypatch.setattr(os, "mkdir", raising(errno.EROFS, when=is_new_inside, instead=real_mkdir))
    opened = Store.open(store.folder, log)
    check(opened.find(KEY).folder)
    opened.touch(KEY)
    opened.set_aside(KEY, "it is cut")
    assert f"{there.folder} stays (it is cut)" in said(log)
    for act in (
        lambda: opened.prune(0),
        lambda: opened.building(KEY, time.sleep).__enter__(),
        lambda: opened.publish(KEY, there.module_set, None, {}),
        lambda: pins.record_good(store.folder, Good(KEY)),
    ):
        with pytest.raises(DriverError, match="Read-only file system") as refused:
            act()
        assert refused.value.code is Code.STORE_UNUSABLE
    monkeypatch.undo()
    assert store.find(KEY) == there
