"""One instance: against our own kind, against a shell's flock, and while others delete the file."""

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import pidlock, status
from driverctr.errors import Code, DriverError
from driverctr.facts import containers
from driverctr.paths import Paths
from driverctr.status import Phase, Status
from tests.unit.conftest import make_tree

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


UNSEEN = "in a PID namespace that is not seen from here"
ID = "0123456789abcdef" * 4
STAT = f"(sh) S {'0 ' * 18}4200 0 0"


def refusal(paths: Paths) -> str:
    with pytest.raises(DriverError, match="another driver container") as refused, pidlock.held(paths.pid_file, paths):
        pytest.fail("two hold it")
    assert refused.value.code is Code.ALREADY_RUNNING
    return refused.value.message


@pytest.fixture
def locked(paths: Paths) -> Iterator[Paths]:
    """A node of its own on which somebody holds the lock, and where the kernel names nobody who does."""
    make_tree(paths.root, {"proc/locks": "", "proc/stat": "btime 1000\n"})
    with pidlock.held(paths.pid_file):
        yield paths


def process(paths: Paths, pid: int, command: str, opened: Path) -> None:
    folder = f"proc/{pid}"
    make_tree(paths.root, {f"{folder}/stat": f"{pid} {STAT}", f"{folder}/cmdline": command, f"{folder}/fd": None})
    (paths.proc / str(pid) / "fd/3").symlink_to(opened)


def test_a_holder_is_believed_by_the_file_it_has_open_and_named_with_its_container(locked: Paths) -> None:
    locked.pid_file.write_text("77\n")
    process(locked, 77, "nvidia-driver\0init\0", locked.pid_file)
    make_tree(locked.root, {"proc/77/cgroup": f"0::/system.slice/docker-{ID}.scope\n"})
    told = f"pid 77 (`nvidia-driver init`), docker container {ID[:12]}, started 1970-01-01 00:17:22 UTC"
    assert refusal(locked).endswith(f": {told}")


@pytest.mark.parametrize("source", ["file", "kernel"])
def test_an_innocent_who_has_the_number_by_now_is_not_blamed(locked: Paths, source: str) -> None:
    locked.pid_file.write_text("77\n" if source == "file" else "")
    if source == "kernel":
        found = locked.pid_file.stat()
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        (locked.proc / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 77 {device} 0 EOF\n")
    process(locked, 77, "train.py", Path("/dev/null"))
    said = refusal(locked)
    assert UNSEEN in said and "--pid=host" in said
    assert "77" not in said and "train.py" not in said


def test_our_own_number_in_the_file_is_another_containers(locked: Paths) -> None:
    locked.pid_file.write_text(f"{os.getpid()}\n")
    process(locked, os.getpid(), "nvidia-driver\0init\0", locked.pid_file)
    said = refusal(locked)
    assert UNSEEN in said and "nvidia-driver init" not in said


def test_a_holder_that_is_not_seen_is_named_by_its_own_status_document(locked: Paths) -> None:
    said = Status(Phase.READY, 5000.0, 1, ID, 1000.0)
    status.publish(locked, said)
    assert refusal(locked).endswith(f"status.json says: container {ID[:12]}, started 1970-01-01 00:16:40 UTC")
    status.publish(locked, replace(said, container=""))
    assert refusal(locked).endswith("status.json says: started 1970-01-01 00:16:40 UTC")
    os.utime(locked.status_file, (1000, 1000))
    assert "status.json" not in refusal(locked), "a former holder wrote it"


def test_a_start_tells_its_container_and_when_it_began(paths: Paths) -> None:
    make_tree(paths.root, {"proc/self/cgroup": f"0::/docker/{ID}\n"})
    begun = status.begin(paths)
    assert begun.container == ID and abs(begun.started - time.time()) < 60


@pytest.mark.parametrize(
    "mounted",
    [
        f"/var/lib/docker/containers/{ID}/hostname /etc/hostname",
        f"/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf",
        f"/containers/overlay-containers/{ID}/userdata/hostname /etc/hostname",
    ],
)
def test_in_a_cgroup_namespace_of_our_own_the_id_is_that_of_the_folder_our_files_are_mounted_from(
    paths: Paths, mounted: str
) -> None:
    line = f"645 632 254:1 {mounted} rw,relatime - ext4 /dev/vda1 rw\n"
    make_tree(paths.root, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": line})
    assert containers.own_id(paths) == ID


def test_another_containers_driver_root_does_not_give_us_its_id(paths: Paths) -> None:
    theirs = f"1 2 0:1 /var/lib/docker/containers/{ID}/resolv.conf /run/nvidia/driver/etc/resolv.conf rw - ext4 x rw\n"
    make_tree(paths.root, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": theirs})
    assert containers.own_id(paths) == ""
    own = theirs.replace("/run/nvidia/driver", "").replace(ID, "ab" * 32)
    (paths.proc / "self/mountinfo").write_text(theirs + own)
    assert containers.own_id(paths) == "ab" * 32


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
