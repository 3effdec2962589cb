"""Labels of the devices in the driver root: set where the host has SELinux, and no failure where they cannot be."""

import errno
import os
from io import StringIO
from pathlib import Path

import pytest

from driverctr import selinux
from driverctr.log import Log
from driverctr.paths import Paths
from tests.unit.conftest import make_tree

OLD = "system_u:object_r:device_t:s0:c1,c2"
NEW = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The labels of files by path; one called "odd" takes none."""
    kept: dict[str, str] = {}

    def get(path: Path, name: str, *, follow_symlinks: bool) -> bytes:
        assert name == "security.selinux" and not follow_symlinks
        if str(path) not in kept:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return kept[str(path)].encode() + b"\0"

    def put(path: Path, name: str, value: bytes, *, follow_symlinks: bool) -> None:
        assert name == "security.selinux" and not follow_symlinks
        if path.name == "odd":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        kept[str(path)] = value.rstrip(b"\0").decode()

    monkeypatch.setattr(os, "getxattr", get)
    monkeypatch.setattr(os, "setxattr", put)
    return kept


@pytest.fixture
def devices(paths: Paths) -> Path:
    """The driver root's /dev."""
    make_tree(paths.driver_root, {"dev/null": "", "dev/nvidia0": "", "dev/nvidia-caps/nvidia-cap1": ""})
    return paths.driver_root / "dev"


def said(log: Log) -> str:
    assert isinstance(log.stream, StringIO)
    return log.stream.getvalue()


@pytest.mark.parametrize("place", ["sys/fs/selinux/enforce", "proc/1/root/sys/fs/selinux/enforce"])
@pytest.mark.parametrize("enforces", ["0", "1"])
def test_all_devices_get_the_type_and_keep_the_rest_of_their_label(
    paths: Paths, devices: Path, labels: dict[str, str], log: Log, place: str, enforces: str
) -> None:
    make_tree(paths.root, {place: enforces})
    labels[str(devices / "null")] = OLD
    selinux.label_devices(paths, log=log)
    assert selinux.enforcing(paths) is (enforces == "1")
    assert labels == {
        str(devices / name): NEW if name == "null" else selinux.PLAIN
        for name in ("", "null", "nvidia0", "nvidia-caps", "nvidia-caps/nvidia-cap1")
    }
    assert not said(log)


def test_a_host_without_selinux_is_left_alone(paths: Paths, devices: Path, labels: dict[str, str], log: Log) -> None:
    selinux.label_devices(paths, log=log)
    assert labels == {} and not said(log)


@pytest.mark.parametrize(("enforces", "level"), [("1", "WARNING"), ("0", "INFO")])
def test_what_takes_no_label_is_said_and_no_failure(
    paths: Paths, devices: Path, labels: dict[str, str], log: Log, enforces: str, level: str
) -> None:
    make_tree(paths.root, {"sys/fs/selinux/enforce": enforces})
    make_tree(devices, {"odd": ""})
    selinux.label_devices(paths, log=log)
    assert str(devices / "nvidia0") in labels
    assert "1 of the files" in said(log) and "odd: Operation not supported" in said(log)
    assert level.lower() in said(log).lower() and ("refused the GPUs" in said(log)) is (enforces == "1")


def test_of_the_hosts_own_dev_only_our_nodes_are_labelled(
    paths: Paths, devices: Path, labels: dict[str, str], log: Log
) -> None:
    make_tree(paths.root, {"sys/fs/selinux/enforce": "1", "proc/1/root": None})
    (paths.root / "proc/1/root/dev").symlink_to(devices)
    selinux.label_devices(paths, log=log)
    named = {Path(path).name for path in labels}
    assert named == {"nvidia0", "nvidia-caps", "nvidia-cap1"}
