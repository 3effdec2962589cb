"""One instance: against our own kind, against a shell's flock, and while others delete the file."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from driverctr import pidlock
from driverctr.errors import Code, DriverError

NAME = "nvidia-driver.pid"


def shell_gets_the_lock(file: Path) -> bool:
    """As NVIDIA's driver container would try."""
    return subprocess.run(["flock", "-n", str(file), "-c", ":"]).returncode == 0


def test_the_file_holds_our_pid_and_goes_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "run" / NAME
    with pidlock.held(file):
        assert file.read_text() == f"{os.getpid()}\n"
    assert not file.exists()


def test_a_longer_stale_pid_is_overwritten_whole(tmp_path: Path) -> None:
    file = tmp_path / NAME
    file.write_text("1234567890123\n")
    with pidlock.held(file):
        assert file.read_text() == f"{os.getpid()}\n"


def test_a_second_instance_names_the_holder_and_leaves_the_file(tmp_path: Path) -> None:
    file = tmp_path / NAME
    with pidlock.held(file):
        with pytest.raises(DriverError) as caught, pidlock.held(file):
            pytest.fail("two hold it")
        assert file.read_text() == f"{os.getpid()}\n"
    assert caught.value.code is Code.ALREADY_RUNNING
    assert f"pid {os.getpid()} (" in caught.value.message and "started 2" in caught.value.message


@pytest.mark.allow_process("flock")
def test_a_shell_and_we_exclude_each_other(tmp_path: Path) -> None:
    file = tmp_path / NAME
    with pidlock.held(file):
        assert not shell_gets_the_lock(file)
    file.touch()
    with subprocess.Popen(["flock", "-n", str(file), "-c", "echo held; read x"], stdin=-1, stdout=-1) as shell:
        assert shell.stdout is not None and shell.stdout.readline() == b"held\n"
        with pytest.raises(DriverError, match="another driver container") as caught, pidlock.held(file):
            pytest.fail("two hold it")
        assert str(shell.pid) in caught.value.message and "flock" in caught.value.message
        shell.communicate(b"\n")
    with pidlock.held(file):
        assert not shell_gets_the_lock(file)


def test_a_holder_outside_our_pid_namespace_is_said_as_far_as_known(tmp_path: Path) -> None:
    file, locks = tmp_path / NAME, tmp_path / "locks"
    locks.write_text("")
    with pidlock.held(file):
        file.write_text("4194304999\n")
        with pytest.raises(DriverError, match=r"pid 4194304999 according to .*a PID namespace we do not see"):
            pidlock.held(file, locks).__enter__()
        file.write_text("")
        with pytest.raises(DriverError, match="--pid=host"):
            pidlock.held(file, locks).__enter__()


def test_a_file_deleted_while_we_lock_it_is_locked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / NAME
    real = fcntl.flock
    attempts: list[int] = []

    def deleting(descriptor: int, operation: int) -> None:
        attempts.append(descriptor)
        if len(attempts) < 3:
            file.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", deleting)
    with pidlock.held(file):
        assert len(attempts) == 3
        assert file.read_text() == f"{os.getpid()}\n"


def test_deleted_and_made_anew_by_somebody_else_it_is_left_to_them(tmp_path: Path) -> None:
    file = tmp_path / NAME
    with pidlock.held(file):
        file.unlink()
        file.write_text("99\n")
    assert file.read_text() == "99\n"


def test_it_goes_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), pidlock.held(tmp_path / NAME):
        _ = 1 // 0
    assert not (tmp_path / NAME).exists()


def test_a_folder_in_its_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(DriverError, match=NAME) as caught, pidlock.held(tmp_path / NAME):
        pytest.fail("held")
    assert caught.value.code is Code.NODE_FILE
