"""The store as one file: whole, or refused after little work with nothing published."""

import gzip
import io
import json
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import archive
from driverctr.modules.archive import FORMAT
from driverctr.modules.entry import Entry
from driverctr.modules.store import Store, check
from tests.unit.stored import KEY, other, publish, said
from tests.unit.stored import store as store
from tests.unit.test_store_crash import killed_before

Member = tuple[str, bytes]


@pytest.fixture
def target(tmp_path: Path, log: Log) -> Store:
    """The store of another node."""
    return Store.open(tmp_path / "other/store", log)


@pytest.fixture
def exported(store: Store, tmp_path: Path) -> Path:
    """An export of two entries."""
    entries = [publish(store), publish(store, other(kernel_version="#2"))]
    archive.write(entries, tmp_path / "export")
    return tmp_path / "export"


def members(file: Path) -> list[Member]:
    with tarfile.open(file) as opened:
        found = [(info.name, opened.extractfile(info)) for info in opened]
        return [(name, content.read()) for name, content in found if content is not None]


def pack(file: Path, content: list[Member], kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(file, "w:gz", format=tarfile.USTAR_FORMAT) as made:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind if name != FORMAT else tarfile.REGTYPE
            made.addfile(info, io.BytesIO(data))


def refusal(file: Path, target: Store) -> DriverError:
    """The refusal, after which nothing lies in the store, nor has been written anywhere else."""
    with pytest.raises(DriverError) as refused:
        archive.read(file, target)
    assert target.look() == () and not [path for path in target.folder.rglob("*") if path.is_file()]
    assert refused.value.code is Code.STORE_UNUSABLE and str(file) in refused.value.message and refused.value.remedy
    return refused.value


def test_what_is_exported_is_imported_as_it_was(store: Store, target: Store, exported: Path) -> None:
    taken = archive.read(exported, target)
    assert {found.key for found in taken} == {found.key for found in store.entries()}
    for found in taken:
        here = store.find(found.key)
        assert check(found.folder).provenance == here.provenance and found.size == here.size
        assert (found.folder / "build.log").read_text() == "make: done\n"
    assert not list((target.folder / "stage").iterdir())


def test_any_tar_can_list_it(exported: Path) -> None:
    names = [name for name, _ in members(exported)]
    files = ["key.json", "manifest.json", "provenance.json", "build.log", "nvidia-uvm.ko", "nvidia.ko"]
    assert names[:7] == [FORMAT, *(f"{KEY.digest}/{name}" for name in files)]


def test_an_import_leaves_what_is_there_already(store: Store, exported: Path) -> None:
    before = store.find(KEY).folder.stat().st_ino
    archive.read(exported, store)
    assert store.find(KEY).folder.stat().st_ino == before


def test_an_import_makes_room_for_what_it_brings(store: Store, exported: Path) -> None:
    size = max(found.size for found in store.entries())
    bound = Store.open(store.folder.parent / "small", store.log, max_bytes=3 * size)
    former = [publish(bound, other(driver_version=f"535.{number}")) for number in range(3)]
    taken = archive.read(exported, bound)
    assert {found.key for found in bound.entries()} == {*(found.key for found in taken), former[-1].key}
    assert "was used least recently and is given up" in said(store.log)


def test_more_than_the_store_may_hold_is_not_unpacked(
    store: Store, log: Log, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = max(found.size for found in store.entries())
    bound = Store.open(tmp_path / "other/store", log, max_bytes=size + size // 2)
    with pytest.raises(DriverError, match=r"it unpacks to more than the \d+ MB that the store may hold") as refused:
        archive.read(exported, bound)
    assert refused.value.code is Code.NO_SPACE and "STORE_MAX_SIZE" in refused.value.remedy
    assert bound.look() == () and not list((bound.folder / "stage").iterdir())


def test_what_a_killed_export_left_goes_with_the_next_and_that_of_a_living_one_stays(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "[export]"
    entries = [publish(store)]
    number, killed = 0, True
    while killed:
        number += 1
        killed = killed_before(number, lambda: archive.write(entries, file))
        archive.write(entries, file)
        assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")], number
    assert number > 2
    living, foreign = tmp_path / ".[export].x1.partial", tmp_path / ".e.x1.partial"
    for partial in (living, foreign):
        partial.touch()
    with files.claimed(living):
        archive.write(entries, file)
    assert living.exists() and foreign.exists()


def test_a_damaged_entry_is_not_exported(store: Store, tmp_path: Path) -> None:
    found = publish(store)
    (found.folder / "nvidia.ko").write_bytes(bytes((found.folder / "nvidia.ko").stat().st_size))
    with pytest.raises(DriverError, match=r"nvidia\.ko is not the file"):
        archive.write([found], tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_file_cut_at_any_place_publishes_nothing(exported: Path, target: Store, tmp_path: Path) -> None:
    content = exported.read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(0, len(content), max(1, len(content) // 40)), len(content) - 8, len(content) - 1]:
        cut.write_bytes(content[:length])
        refusal(cut, target)


def test_a_bit_that_flipped_anywhere_publishes_nothing_or_changes_nothing(
    exported: Path, target: Store, tmp_path: Path
) -> None:
    content = exported.read_bytes()
    bad = tmp_path / "bad"
    for place in range(10, len(content), max(1, len(content) // 40)):
        bad.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        refusal(bad, target)


def compressed_zeros(file: Path, gigabytes: int) -> None:
    """A file of zeros, of so many gigabytes: gzip members of a megabyte each, one after the other."""
    megabyte = gzip.compress(bytes(1 << 20))
    file.write_bytes(megabyte * (gigabytes << 10))


def test_ten_gigabytes_of_zeros_are_refused_after_little_work(target: Store, tmp_path: Path) -> None:
    compressed_zeros(tmp_path / "zeros", 10)
    began = time.process_time()
    assert "more follows where it ends" in refusal(tmp_path / "zeros", target).message
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", ["key.json", "nvidia.ko"])
def test_a_file_that_claims_to_have_ten_gigabytes_is_refused_after_little_work(
    exported: Path, target: Store, tmp_path: Path, name: str
) -> None:
    size = 10 << 30
    content = members(exported)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as made:
        for each, data in content:
            if each == f"{KEY.digest}/manifest.json":
                document = json.loads(data)
                document["modules"]["nvidia"]["size"] = size
                data = json.dumps(document).encode()
            info = tarfile.TarInfo(each)
            info.size = len(data)
            if each == f"{KEY.digest}/{name}":
                info.size = size
                raw.write(info.tobuf(tarfile.GNU_FORMAT))
                break
            made.addfile(info, io.BytesIO(data))
        packed = gzip.compress(raw.getvalue()[: raw.tell()])
    compressed_zeros(tmp_path / "zeros", 10)
    (tmp_path / "bad").write_bytes(packed)
    with (tmp_path / "bad").open("ab") as file, (tmp_path / "zeros").open("rb") as zeros:
        shutil.copyfileobj(zeros, file)
    began = time.process_time()
    assert f"{name} has {size} bytes" in refusal(tmp_path / "bad", target).message
    assert time.process_time() - began < 1


def changed(content: list[Member], name: str, change: Callable[[bytes], bytes | None]) -> list[Member]:
    """Another content, or none, for one member."""
    found = [(each, change(data) if each == name else data) for each, data in content]
    return [(each, data) for each, data in found if data is not None]


def document_with(**values: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **values}).encode()


def with_key(content: list[Member], version: str) -> list[Member]:
    """Another key for the first entry, under its right digest."""
    found = replace(KEY, kernel_version=version)
    content = changed(content, f"{FIRST}/key.json", lambda data: found.document.encode())
    return [(name.replace(FIRST, found.digest), data) for name, data in content]


FIRST = KEY.digest
CHANGES: dict[str, tuple[Callable[[list[Member]], list[Member]], str]] = {
    "empty": (lambda content: [], "begins otherwise"),
    "another's": (lambda content: [("etc/passwd", b"x")], "begins otherwise"),
    "newer": (lambda content: changed(content, FORMAT, document_with(schema=2)), "written by a newer driverctr"),
    "no schema": (lambda content: changed(content, FORMAT, lambda data: b"{}"), "its schema is None"),
    "not json": (lambda content: changed(content, FORMAT, lambda data: b"["), "Expecting value"),
    "deep": (lambda content: changed(content, FORMAT, lambda data: b"[" * 100_000), "recursion"),
    "no key": (lambda content: changed(content, f"{FIRST}/key.json", lambda data: None), "key.json is missing"),
    "other key": (
        lambda content: changed(content, f"{FIRST}/key.json", document_with(kernel_version="#9")),
        "describes the entry",
    ),
    "key that is none": (lambda content: changed(content, f"{FIRST}/key.json", lambda data: b"{}"), "key schema None"),
    "newer entry": (
        lambda content: changed(content, f"{FIRST}/manifest.json", document_with(schema=2)),
        "written by a newer driverctr",
    ),
    "no modules": (
        lambda content: changed(content, f"{FIRST}/manifest.json", document_with(modules={})),
        "names no modules",
    ),
    "leads out": (
        lambda content: changed(
            content, f"{FIRST}/manifest.json", lambda data: data.replace(b'"nvidia.ko"', b'"../../nvidia.ko"')
        ),
        "file name '../../nvidia.ko'",
    ),
    "absolute": (
        lambda content: changed(
            content, f"{FIRST}/manifest.json", lambda data: data.replace(b'"nvidia.ko"', b'"/n.ko"')
        ),
        "file name '/n.ko'",
    ),
    "member leads out": (
        lambda content: [(name.replace("/nvidia.ko", "/../../nvidia.ko"), data) for name, data in content],
        "is not in its manifest",
    ),
    "twice": (
        lambda content: [*content[:7], content[6], *content[7:]],
        "nvidia.ko is not in its manifest, or there twice",
    ),
    "lacks one": (lambda content: changed(content, f"{FIRST}/nvidia.ko", lambda data: None), "lacks nvidia.ko"),
    "other content": (
        lambda content: changed(content, f"{FIRST}/nvidia.ko", lambda data: data[:-1] + b"x"),
        "nvidia.ko is not the file its manifest describes",
    ),
    "shorter": (lambda content: changed(content, f"{FIRST}/nvidia.ko", lambda data: data[:-1]), "its manifest says"),
    "two logs": (
        lambda content: [*content[:5], content[4], *content[5:]],
        "build.log is not in its manifest, or there",
    ),
    "name for a terminal": (
        lambda content: [(name.replace("/nvidia.ko", "/\x1b[2Jnvidia.ko"), data) for name, data in content],
        "nvidia.ko' in it is no plain file",
    ),
    "key for a terminal": (
        lambda content: with_key(content, "#1\x1b]0;x\x07"),
        r"the key's kernel_version is '#1\x1b]0;x\x07'",
    ),
    "key that is no text": (
        lambda content: with_key(content, "\ud800"),
        r"the key's kernel_version is '\ud800'",
    ),
    "manifest for a terminal": (
        lambda content: changed(content, f"{FIRST}/manifest.json", document_with(compiler="\x1b[2J")),
        r"compiler is '\x1b[2J'",
    ),
    "second is bad": (lambda content: content[:-1], "lacks nvidia.ko"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_file_that_is_not_as_we_write_it_is_refused_with_one_reason(
    exported: Path, target: Store, tmp_path: Path, case: str
) -> None:
    change, reason = CHANGES[case]
    pack(tmp_path / "bad", change(members(exported)))
    assert reason in refusal(tmp_path / "bad", target).message
    assert not (tmp_path / "nvidia.ko").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, b"x", b"L"])
def test_nothing_but_plain_files_is_accepted(exported: Path, target: Store, tmp_path: Path, kind: bytes) -> None:
    pack(tmp_path / "bad", members(exported), kind)
    assert "is no plain file" in refusal(tmp_path / "bad", target).message


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x1f\x8b", gzip.compress(b"x" * 2000, mtime=0), bytes(5000)]
)
def test_foreign_files_are_refused(target: Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign").write_bytes(content)
    refusal(tmp_path / "foreign", target)


def test_a_file_that_is_not_there_or_cannot_be_written_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="missing cannot be read: No such file") as refused:
        archive.read(tmp_path / "missing", store)
    assert refused.value.code is Code.NODE_FILE
    (tmp_path / "folder").mkdir()
    with pytest.raises(DriverError, match="folder cannot be written") as refused:
        archive.write([publish(store)], tmp_path / "folder")
    assert refused.value.code is Code.NODE_FILE


def test_an_import_killed_at_any_moment_leaves_whole_entries_and_can_be_repeated(
    store: Store, target: Store, tmp_path: Path
) -> None:
    archive.write([publish(store)], tmp_path / "export")
    number, killed = 0, True
    while killed:
        number += 1
        killed = killed_before(number, lambda: archive.read(tmp_path / "export", target))
        assert all(isinstance(seen, Entry) and check(seen.folder) for seen in target.look())
        assert len(archive.read(tmp_path / "export", target)) == 1 and not list((target.folder / "stage").iterdir())
        shutil.rmtree(target.folder)
    assert number > 15
