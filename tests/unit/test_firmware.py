"""GSP firmware: the search path set once and given back, files copied where a mount hides the image's."""

import errno
from io import StringIO
from pathlib import Path

import pytest

from driverctr import files, firmware
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.paths import Paths
from tests.unit.conftest import make_tree
from tests.unit.fake_mounts import FakeKernel

VERSION = "535.309.01"
OURS = "/run/nvidia/driver/lib/firmware"
PARAMETER = "sys/module/firmware_class/parameters/path"
GSP = f"lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin"


@pytest.fixture
def kernel(paths: Paths) -> FakeKernel:
    """A container whose image holds the firmware, the host's search path blank."""
    make_tree(paths.root, {PARAMETER: "\n", GSP: "image", "run/nvidia": None})
    made = FakeKernel(paths.root)
    made.add("", 41)
    return made


def hide(kernel: FakeKernel, paths: Paths) -> None:
    """Mount a folder of the host over /lib/firmware; the fake kernel binds no content, so lay out both views."""
    kernel.add("lib/firmware", 50)
    make_tree(paths.root, {f"{firmware.PEEK}/{GSP}": "image"})
    (paths.root / GSP).unlink()


def path_of(paths: Paths) -> str:
    """The search path as the kernel file holds it."""
    return (paths.root / PARAMETER).read_text()


def said(log: Log) -> str:
    """What was logged."""
    assert isinstance(log.stream, StringIO)
    return log.stream.getvalue()


def test_a_blank_path_is_set_without_newline_and_blanked_again(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    (paths.root / PARAMETER).write_text("")
    data = firmware.place(paths, VERSION, log=log, calls=kernel)
    assert path_of(paths) == OURS and data == {"path_set": True, "placed": []}
    (paths.root / PARAMETER).write_text(OURS)
    firmware.undo(paths, data)
    assert path_of(paths).startswith("\0") and not list(paths.own_run.glob("*.json"))
    firmware.undo(paths, data)


def test_after_a_crash_we_still_know_that_we_set_it(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    (paths.root / PARAMETER).write_text("")
    firmware.place(paths, VERSION, log=log, calls=kernel)
    assert firmware.place(paths, VERSION, log=log, calls=kernel)["path_set"] is True


def test_our_value_set_by_nvidias_container_is_not_taken_back(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    (paths.root / PARAMETER).write_text(OURS + "\n")
    data = firmware.place(paths, VERSION, log=log, calls=kernel)
    firmware.undo(paths, data)
    assert path_of(paths) == OURS + "\n" and data["path_set"] is False


def test_a_value_changed_meanwhile_is_left(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    data = firmware.place(paths, VERSION, log=log, calls=kernel)
    (paths.root / PARAMETER).write_text("/elsewhere\n")
    firmware.undo(paths, data)
    assert path_of(paths) == "/elsewhere\n"


def test_switched_off_nothing_is_touched(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    assert firmware.place(paths, VERSION, log=log, wanted=False, calls=kernel) == {}
    assert path_of(paths) == "\n" and "NVreg_EnableGpuFirmware=0" in said(log)
    firmware.undo(paths, {})


def test_a_mount_that_hides_the_images_gets_a_copy_once(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    hide(kernel, paths)
    target = paths.root / GSP
    data = firmware.place(paths, VERSION, log=log, calls=kernel)
    assert target.read_text() == "image" and data["placed"] == [str(target)]
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    before = target.stat().st_ino
    assert firmware.place(paths, VERSION, log=log, calls=kernel)["placed"] == [str(target)]
    assert target.stat().st_ino == before
    target.write_text("half of i")
    firmware.place(paths, VERSION, log=log, calls=kernel)
    assert target.read_text() == "image"
    assert not [m for m in kernel.mounts if "/mnt/" in m.target]
    firmware.undo(paths, data)
    assert not target.parent.exists() and (paths.root / "lib/firmware").is_dir()


def test_the_images_own_file_stays_where_the_mount_of_an_earlier_start_is_gone(
    paths: Paths, kernel: FakeKernel, log: Log
) -> None:
    hide(kernel, paths)
    firmware.place(paths, VERSION, log=log, calls=kernel)
    kernel.umount(paths.root / "lib/firmware")
    data = firmware.place(paths, VERSION, log=log, calls=kernel)
    firmware.undo(paths, data)
    assert (paths.root / GSP).read_text() == "image"
    assert not list(paths.own_run.glob("*.json"))


def test_what_was_right_before_us_stays(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    hide(kernel, paths)
    (paths.root / GSP).write_text("image")
    data = firmware.place(paths, VERSION, log=log, calls=kernel)
    firmware.undo(paths, data)
    assert data["placed"] == [] and (paths.root / GSP).read_text() == "image"


def test_a_mount_that_cannot_be_written_is_told(
    paths: Paths, kernel: FakeKernel, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(kernel, paths)

    def read_only(source: Path, target: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files, "copy_atomic", read_only)
    assert firmware.place(paths, VERSION, log=log, calls=kernel)["placed"] == []
    assert "Read-only file system" in said(log) and "driver root" in said(log)


def foreign_host(paths: Paths) -> Path:
    """A host seen through process 1, its search path set by somebody else."""
    make_tree(
        paths.root,
        {
            "proc/1/ns/mnt": "-> mnt:[1]",
            "proc/self/ns/mnt": "-> mnt:[2]",
            "proc/1/root/lib/modules": None,
            "proc/1/root/opt": "-> /srv/firmware",
            "proc/1/root/srv/firmware": None,
        },
    )
    (paths.root / PARAMETER).write_text("/opt\n")
    return paths.root / "proc/1/root/srv/firmware"


def test_a_foreign_path_is_kept_and_the_firmware_put_there(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    folder = foreign_host(paths)
    data = firmware.place(paths, VERSION, log=log, calls=kernel)
    placed = folder / "nvidia" / VERSION / "gsp_ga10x.bin"
    assert placed.read_text() == "image" and data == {"path_set": False, "placed": [str(placed)]}
    assert path_of(paths) == "/opt\n" and "set by somebody else" in said(log)


def test_a_foreign_path_that_is_not_there_is_an_error_with_the_fix(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    foreign_host(paths).rmdir()
    with pytest.raises(DriverError, match="/opt") as caught:
        firmware.place(paths, VERSION, log=log, calls=kernel)
    assert caught.value.code is Code.FIRMWARE_FAILED and "blank /sys/" in caught.value.remedy


def test_a_foreign_path_we_cannot_see_is_told(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    (paths.root / PARAMETER).write_text("/opt\n")
    firmware.place(paths, VERSION, log=log, calls=kernel)
    assert "cannot be seen" in said(log)


def test_a_path_that_cannot_be_set_is_an_error(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    (paths.root / PARAMETER).unlink()
    with pytest.raises(DriverError, match="could not be set") as caught:
        firmware.place(paths, VERSION, log=log, calls=kernel)
    assert caught.value.code is Code.FIRMWARE_FAILED


def test_an_image_without_firmware_is_told(paths: Paths, kernel: FakeKernel, log: Log) -> None:
    (paths.root / GSP).unlink()
    firmware.place(paths, VERSION, log=log, calls=kernel)
    assert f"no GSP firmware for {VERSION}" in said(log)
