"""Folders of the host: cloned in its namespace by a thread, attached in ours."""

import errno
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.mounts import host
from tests.unit.fake_mounts import FakeKernel


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    """Our namespace."""
    made = FakeKernel(tmp_path)
    made.add("", 41)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """What stands for /proc/1/ns/mnt: a link to another namespace, and a file that can be opened."""
    (tmp_path / "mnt:[1]").touch()
    link = tmp_path / "ns"
    link.symlink_to("mnt:[1]")
    return link


def test_cloned_there_attached_here_private_and_read_only(kernel: FakeKernel, elsewhere: Path, tmp_path: Path) -> None:
    host.bind_from_host(tmp_path, tmp_path / "src", namespace=elsewhere, calls=kernel)
    assert [call.split()[0] for call in kernel.calls] == [
        "unshare",
        "setns",
        "open_tree",
        "move_mount",
        "mount",
        "mount",
    ]
    assert (tmp_path / "src").is_dir() and kernel.calls[-1] == "mount None /src 0x1021"
    host.unbind(tmp_path / "src", kernel)
    host.unbind(tmp_path / "src", kernel)
    assert len(kernel.mounts) == 1


def test_to_follow_the_host_is_to_be_its_slave(kernel: FakeKernel, elsewhere: Path, tmp_path: Path) -> None:
    host.bind_from_host(tmp_path, tmp_path / "x", namespace=elsewhere, follow=True, read_only=False, calls=kernel)
    assert kernel.calls[-1] == "mount None /x 0x84000"


def test_without_the_hosts_pid_namespace_nothing_is_mounted(kernel: FakeKernel, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="our own mount namespace") as caught:
        host.bind_from_host(Path("/a"), tmp_path / "x", namespace=Path("/proc/self/ns/mnt"), calls=kernel)
    assert caught.value.code is Code.MOUNT_FAILED and "-v /a:" in caught.value.remedy
    assert kernel.calls == [] and not (tmp_path / "x").exists()


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSYS, "-v /"), (errno.ENOENT, "The host has no")])
def test_what_the_other_side_refuses_is_said(
    kernel: FakeKernel, elsewhere: Path, tmp_path: Path, number: int, words: str
) -> None:
    kernel.refuse["open_tree"] = number
    with pytest.raises(DriverError) as caught:
        host.bind_from_host(tmp_path, tmp_path / "x", namespace=elsewhere, calls=kernel)
    assert words in caught.value.remedy
