"""Another version's userspace in place of ours: nothing of ours shows, everything else does, and nothing is left."""

import errno
import shutil
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from driverctr import config as settings
from driverctr import firmware, lifecycle
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.mounts.driverroot import DriverRoot
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.steps import Tools
from driverctr.userspace import substitute
from driverctr.userspace.listing import Item, Listing
from driverctr.userspace.substitute import Substitute
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.test_driverroot import container, targets
from tests.unit.test_userspaces import LIBRARIES, NEW, OLD, make_root

BOUND = ["etc/ld.so.cache", "usr/bin", LIBRARIES]
GSP = "usr/lib/firmware/nvidia"


class Stage:
    """A container of the new version, and the old one's files."""

    def __init__(self, paths: Paths, runner: Runner, fake_bin: FakeBin, old: Path) -> None:
        self.paths = paths
        self.kernel = container(paths)
        self.ours, self.theirs, self.old = make_root(paths.root, NEW), make_root(old, OLD), old
        make_tree(
            paths.root,
            {
                f"{LIBRARIES}/libc.so.6": "c",
                f"{LIBRARIES}/perl/deep": "perl",
                f"{LIBRARIES}/libz.so": "-> libz.so.1",
                "usr/bin/bash": "sh",
                "etc/ld.so.cache": "ours",
                "lib": "-> usr/lib",
            },
        )
        (paths.root / "usr/bin/bash").chmod(0o2755)
        fake_bin.add("ldconfig", 'while [ "$1" != -C ]; do shift; done; echo theirs > "$2"')
        self.substitute = Substitute(paths, runner, self.kernel)

    def copy_out(self, item: Item, target: Path) -> None:
        target.write_bytes((self.old / item.path).read_bytes())

    def put(self) -> dict[str, Path]:
        return self.substitute.put(self.ours, self.theirs, self.copy_out)

    @property
    def bound(self) -> list[str]:
        names = (target for name in ("etc", "usr") for target in targets(self.kernel, name))
        return sorted(names)


@pytest.fixture
def stage(paths: Paths, runner: Runner, fake_bin: FakeBin, tmp_path: Path) -> Stage:
    return Stage(paths, runner, fake_bin, tmp_path / "old")


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_each_folder_shows_theirs_and_all_that_is_no_drivers(stage: Stage) -> None:
    substitutes = stage.put()
    assert names(substitutes[LIBRARIES]) == {
        f"libnvidia-ml.so.{OLD}",
        "libnvidia-ml.so.1",
        f"libcuda.so.{OLD}",
        "libc.so.6",
        "libz.so",
        "perl",
        "perl/deep",
    }
    assert (substitutes[LIBRARIES] / "libnvidia-ml.so.1").readlink().name == f"libnvidia-ml.so.{OLD}"
    assert (substitutes["usr/bin"] / "nvidia-smi").read_text() == f"smi {OLD}"
    assert (substitutes["usr/bin"] / "nvidia-smi").stat().st_mode & 0o7777 == 0o4755
    assert (substitutes["usr/bin"] / "bash").stat().st_mode & 0o7777 == 0o2755
    assert names(substitutes[f"{GSP}/{OLD}"]) == {"gsp_ga10x.bin"} and names(substitutes[f"{GSP}/{NEW}"]) == set()
    assert substitutes["etc/ld.so.cache"].read_text() == "theirs\n"
    assert all(path.is_relative_to(stage.substitute.place) for path in substitutes.values())
    assert (stage.paths.root / "usr/bin/nvidia-smi").read_text() == f"smi {NEW}", "our own root is not changed"


def test_programs_of_ours_find_theirs_but_the_firmware_is_for_the_driver_root_alone(stage: Stage) -> None:
    stage.put()
    assert stage.bound == sorted(BOUND)


def test_the_driver_root_shows_theirs(stage: Stage, log: Log) -> None:
    substitutes = stage.put()
    DriverRoot(stage.paths, log, stage.kernel).export(substitutes=substitutes)
    shown = {target.removeprefix("run/nvidia/driver/") for target in targets(stage.kernel, "run/nvidia/driver/")}
    assert {*BOUND, f"{GSP}/{OLD}", f"{GSP}/{NEW}"} <= shown
    DriverRoot(stage.paths, log, stage.kernel).export()
    assert targets(stage.kernel, "run/nvidia/driver/usr") == []


def test_taken_back_nothing_is_left(stage: Stage) -> None:
    stage.put()
    stage.kernel.add("usr/share/users-own", 77)
    stage.substitute.take_back()
    assert stage.bound == ["usr/share/users-own"] and targets(stage.kernel, "mnt") == []
    stage.substitute.take_back()


def test_what_a_killed_start_left_over_ours_is_taken_away_and_said(stage: Stage, log: Log) -> None:
    substitutes = stage.put()
    DriverRoot(stage.paths, log, stage.kernel).export(substitutes=substitutes)
    shown = targets(stage.kernel, "run/nvidia/driver/usr")
    for _ in range(2):
        substitute.uncover(stage.paths, stage.substitute.runner, stage.kernel)
    assert stage.bound == [] and targets(stage.kernel, "mnt") == []
    assert targets(stage.kernel, "run/nvidia/driver/usr") == shown, "until the driver root is exported anew"
    assert cast(StringIO, log.stream).getvalue().count("another version's userspace over ours") == 1


def test_what_cannot_be_taken_off_ours_is_no_start(stage: Stage) -> None:
    stage.put()
    stage.kernel.refuse["umount"] = errno.EPERM
    with pytest.raises(DriverError, match="cannot be taken off ours") as failed:
        substitute.uncover(stage.paths, stage.substitute.runner, stage.kernel)
    assert failed.value.code is Code.MOUNT_FAILED


def test_a_start_uncovers_ours_before_its_first_look(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("driverctr.pidlock.held", lambda file: nullcontext())
    monkeypatch.setattr(substitute, "uncover", lambda paths, runner: seen.append("uncovered"))
    monkeypatch.setattr(lifecycle.Start, "run", lambda self: seen.append("looked"))
    signals = SimpleNamespace(install=lambda: None)
    known = {"config": settings.load({}), "runner": stage.substitute.runner, "signals": signals}
    tools = cast(Tools, SimpleNamespace(paths=stage.paths, **known))
    lifecycle.init(tools)
    stage.put()
    lifecycle.init(tools)
    assert seen == ["looked", "uncovered", "looked"]


@pytest.mark.parametrize("end", [DriverError(Code.NO_MODULES, "damaged"), KeyboardInterrupt()])
def test_whatever_ends_it_half_way_leaves_nothing(stage: Stage, end: BaseException) -> None:
    def copy_out(item: Item, target: Path) -> None:
        raise end

    with pytest.raises(type(end)):
        stage.substitute.put(stage.ours, stage.theirs, copy_out)
    assert stage.bound == [] and targets(stage.kernel, "mnt") == []


def test_a_library_cache_that_cannot_be_made_is_no_end_with_half_of_it(stage: Stage, fake_bin: FakeBin) -> None:
    fake_bin.add("ldconfig", "exit 1")
    with pytest.raises(DriverError, match="ldconfig"):
        stage.put()
    assert stage.bound == [] and targets(stage.kernel, "mnt") == []


def test_a_full_disk_is_told_with_what_it_takes(stage: Stage) -> None:
    def copy_out(item: Item, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DriverError, match=f"the userspace of {OLD} cannot be put in place") as full:
        stage.substitute.put(stage.ours, stage.theirs, copy_out)
    assert full.value.code is Code.NO_SPACE and "in memory" in full.value.remedy


def test_a_mount_that_is_refused_is_told(stage: Stage) -> None:
    stage.kernel.refuse["mount"] = errno.EPERM
    with pytest.raises(DriverError) as failed:
        stage.put()
    assert failed.value.code is Code.MOUNT_FAILED and stage.bound == []


def test_it_can_be_put_again_while_the_driver_root_shows_the_first(stage: Stage, log: Log) -> None:
    DriverRoot(stage.paths, log, stage.kernel).export(substitutes=stage.put())
    shown = targets(stage.kernel, "run/nvidia/driver/usr")
    shutil.rmtree(stage.substitute.place)  # the fake kernel hides nothing by a mount
    stage.put()
    assert shown and targets(stage.kernel, "run/nvidia/driver/usr") == shown
    assert stage.bound == sorted(BOUND) and targets(stage.kernel, "mnt") == ["mnt/driverctr/former"]


def test_folders_inside_others_come_with_them() -> None:
    assert substitute.outermost({"a/b", "a", "ab", "a/b/c", "d/e"}) == ["a", "ab", "d/e"]


def test_firmware_of_the_version_that_returns_is_found_where_it_was_put(stage: Stage, paths: Paths, log: Log) -> None:
    make_tree(paths.root, {"sys/module/firmware_class/parameters/path": "\n", "host/lib": None})
    substitutes = stage.put()
    stage.kernel.add("usr/lib/firmware", 90)
    make_tree(paths.root / firmware.PEEK, {"usr/lib/firmware": None, "lib": "-> usr/lib"})
    data = firmware.place(paths, OLD, log=log, source=substitutes[f"{GSP}/{OLD}"], calls=stage.kernel)
    placed = paths.root / "lib/firmware/nvidia" / OLD / "gsp_ga10x.bin"
    assert placed.read_text() == "gsp" and [Path(name).resolve() for name in data["placed"]] == [placed.resolve()]


def test_a_listing_of_nothing_substitutes_nothing_but_hides_ours(stage: Stage) -> None:
    substitutes = stage.substitute.put(stage.ours, Listing(OLD, "debian-amd64", ()), stage.copy_out)
    assert "nvidia-smi" not in names(substitutes["usr/bin"]) and "bash" in names(substitutes["usr/bin"])
