"""What a process killed at any moment leaves is known to the next one, and goes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from driverctr import files, firmware, lifecycle, moduletree
from driverctr.errors import DriverError
from driverctr.facts.hostroot import HostRoot, Reach
from driverctr.hashing import Hashes, sha256
from driverctr.kmod import Kmod
from driverctr.log import Log
from driverctr.modules.drafts import SCRATCH, scratch_folder
from driverctr.paths import Paths
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_mounts import FakeKernel
from tests.unit.test_firmware import GSP, OURS, PARAMETER, VERSION, hide

RELEASE = "6.1.0-56-amd64"
DRM = f"lib/modules/{RELEASE}/kernel/drm.ko"


def killed_in(act: Callable[[], object]) -> None:
    """Run an act in a child that ends by SIGKILL in it."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def die(*words: object, **named: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def node(paths: Paths, fake_bin: FakeBin) -> Paths:
    """A node whose host has drm, and a depmod that leaves an index."""
    index = f"{paths.root}/lib/modules/{RELEASE}/modules.dep.bin"
    fake_bin.add("depmod", f'echo index >"{index}"')
    fake_bin.add("modprobe", f'case "$*" in *" drm") echo "insmod {paths.root}/host/{DRM}";; esac')
    make_tree(paths.root, {f"host/{DRM}": "drm", "built/nvidia.ko": "nvidia", f"lib/modules/{RELEASE}": None})
    return paths


def assemble(node: Paths, fake_bin: FakeBin) -> tuple[str, ...]:
    host = HostRoot(node.root / "host", Reach.PROCESS)
    file = node.root / "built/nvidia.ko"
    return moduletree.assemble(node, RELEASE, {file: sha256(file)}, host, Kmod(fake_bin.environment), Hashes())


def test_a_write_that_is_killed_leaves_the_former_file_and_a_name_that_the_sweep_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_atomic(tmp_path / "status.json", "former")
    monkeypatch.setattr(os, "fsync", die)
    killed_in(lambda: files.write_atomic(tmp_path / "status.json", "half"))
    assert (tmp_path / "status.json").read_text() == "former" and len(list(tmp_path.iterdir())) == 2
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "status.json"]


def test_a_start_sweeps_every_folder_it_writes_small_files_into(paths: Paths) -> None:
    names = ("run/nvidia", "run/nvidia/validations", "run/nvidia/driverctr", "etc/modprobe.d")
    make_tree(paths.root, {f"{name}/.some.file.x1y2.partial": "half" for name in names})
    lifecycle.sweep(paths)
    assert not [path for path in paths.root.rglob("*") if path.is_file()]


def test_the_folder_of_a_killed_build_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    def build_and_die() -> None:
        with scratch_folder(tmp_path) as folder:
            (folder / "nvidia.o").write_text("half")
            die()

    killed_in(build_and_die)
    assert len(list(tmp_path.glob(f"{SCRATCH}*"))) == 1
    with scratch_folder(tmp_path) as living, scratch_folder(tmp_path) as second:
        assert sorted(tmp_path.iterdir()) == sorted([living, second])
    assert not list(tmp_path.iterdir())


def test_an_index_is_not_believed_when_modules_were_placed_and_depmod_never_ran(
    node: Paths, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(node.root, {f"lib/modules/{RELEASE}/modules.dep.bin": "of former modules"})
    with monkeypatch.context() as patched:
        patched.setattr(Kmod, "index", die)
        killed_in(lambda: assemble(node, fake_bin))
    assemble(node, fake_bin)
    assert (node.modules_tree(RELEASE) / "modules.dep.bin").read_text() == "index\n"


def test_a_host_module_is_never_half_copied(node: Paths, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", die)
        killed_in(lambda: assemble(node, fake_bin))
    assert not (node.root / DRM).exists()
    assert assemble(node, fake_bin) == ("drm",)
    assert [path.name for path in (node.root / DRM).parent.iterdir()] == ["drm.ko"]


def firmware_node(paths: Paths) -> FakeKernel:
    make_tree(paths.root, {PARAMETER: "", GSP: "image", "run/nvidia": None})
    kernel = FakeKernel(paths.root)
    kernel.add("", 41)
    return kernel


def test_a_search_path_set_right_before_the_kill_is_taken_back_by_the_next_stop(
    paths: Paths, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = firmware_node(paths)

    def set_and_die(path: Path, value: str) -> None:
        path.write_text(value)
        die()

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_kernel", set_and_die)
        killed_in(lambda: firmware.place(paths, VERSION, log=log, calls=kernel))
    assert (paths.root / PARAMETER).read_text() == OURS
    firmware.undo(paths, firmware.place(paths, VERSION, log=log, calls=kernel))
    assert (paths.root / PARAMETER).read_text().startswith("\0")


def test_firmware_copied_right_before_the_kill_is_removed_by_the_next_stop(
    paths: Paths, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = firmware_node(paths)
    hide(kernel, paths)
    copy = files.copy_atomic

    def copy_and_die(source: Path, target: Path) -> None:
        copy(source, target)
        die()

    with monkeypatch.context() as patched:
        patched.setattr(files, "copy_atomic", copy_and_die)
        killed_in(lambda: firmware.place(paths, VERSION, log=log, calls=kernel))
    assert (paths.root / GSP).is_file()
    firmware.undo(paths, firmware.place(paths, VERSION, log=log, calls=kernel))
    assert not (paths.root / GSP).exists()


def test_firmware_that_cannot_be_placed_gives_the_search_path_back(
    paths: Paths, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = firmware_node(paths)
    hide(kernel, paths)
    (paths.root / PARAMETER).write_text("")

    def refuse(*words: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(kernel, "mount", refuse)
    with pytest.raises(DriverError):
        firmware.place(paths, VERSION, log=log, calls=kernel)
    assert (paths.root / PARAMETER).read_text().startswith("\0")
