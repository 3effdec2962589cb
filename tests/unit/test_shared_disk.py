"""Disks that several machines share (NFS): its locks need a file open for writing, and a folder's reach nobody else."""

import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path

import pytest

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import archive
from driverctr.modules.push import Folder, push
from driverctr.modules.store import Store
from tests.unit.remote_entries import Pushed, other_key
from tests.unit.stored import publish
from tests.unit.stored import store as store


@pytest.fixture
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flock(2) says of NFS: emulated by a lock for writing; those of folders are the machine's own."""
    flock = fcntl.flock

    def emulated(descriptor: int, operation: int) -> None:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if regular and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", emulated)


def take_for_abandoned(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Another machine, which does not see our locks of folders, looks for abandoned stages as soon as a file came."""
    copy, flock = files.copy_atomic, fcntl.flock

    def copy_beside_another(source: Path, target: Path) -> None:
        copy(source, target)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(fcntl, "flock", lambda descriptor, operation: None)
            files.remove_abandoned(folder.glob(".*.stage-*"))
        monkeypatch.setattr(files, "copy_atomic", copy)
        assert fcntl.flock is flock

    monkeypatch.setattr(files, "copy_atomic", copy_beside_another)


def test_a_store_is_exported_to_it_and_what_a_killed_export_left_goes(store: Store, tmp_path: Path, nfs: None) -> None:
    file = tmp_path / "export"
    (tmp_path / ".export.x1.partial").touch()
    archive.write([publish(store)], file)
    assert file.stat().st_size and not list(tmp_path.glob(".*.partial"))


def test_a_push_whose_stage_another_machine_took_away_publishes_nothing(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = Pushed(tmp_path, log)
    take_for_abandoned(monkeypatch, pushed.folder)
    target = Folder(pushed.folder)
    with pytest.raises(DriverError, match="taken away by another who pushes") as error:
        push(other_key(), pushed.module_set, target, pushed.private, log, scratch=tmp_path)
    assert error.value.code is Code.NODE_FILE and "one machine" in error.value.remedy
    assert [path.name for path in pushed.folder.iterdir()] == [pushed.entry.name]
    assert push(other_key(), pushed.module_set, target, pushed.private, log, scratch=tmp_path)
    assert {path.name for path in pushed.folder.iterdir()} == {pushed.entry.name, other_key().digest}


def test_what_is_being_removed_gets_no_name_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tmp_path / ".e.stage-x"
    stage.mkdir()
    (stage / "file").touch()
    remove = shutil.rmtree

    def finished_meanwhile(path: Path, *, ignore_errors: bool) -> None:
        with pytest.raises(FileNotFoundError):
            stage.rename(tmp_path / "e")
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", finished_meanwhile)
    files.remove_abandoned(tmp_path.glob(".*.stage-*"))
    assert list(tmp_path.iterdir()) == []


def test_one_who_was_killed_while_removing_leaves_nothing_for_ever(tmp_path: Path) -> None:
    (tmp_path / f".e.stage-x{files.GONE}").mkdir()
    files.remove_abandoned(tmp_path.glob(".*.stage-*"))
    assert list(tmp_path.iterdir()) == []
