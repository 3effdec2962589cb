"""Mechanisms on a fake node: build-ids, GPUs, parameters, device nodes, the module tree."""

import os
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driverctr import devices, moduletree, parameters
from driverctr.devices import Node
from driverctr.errors import Code, DriverError
from driverctr.facts import fabric, gpus, modules
from driverctr.facts.hostroot import HostRoot, Reach
from driverctr.hashing import Hashes, sha256
from driverctr.kmod import Kmod
from driverctr.paths import Paths
from tests.unit.conftest import FakeBin, make_tree


def test_a_build_id_is_found_behind_other_notes_and_never_read_past_the_end(tmp_path: Path) -> None:
    other = struct.pack("<III", 6, 5, 7) + b"Linux\0\0\0" + b"abcde\0\0\0"
    note = struct.pack("<III", 4, 4, 3) + b"GNU\0" + b"\xc0\xff\xee\x11"
    (tmp_path / "note").write_bytes(other + note)
    assert modules.read_build_id(tmp_path / "note") == "c0ffee11"
    for content in (b"", other, b"\xff" * 40, note[:11]):
        (tmp_path / "note").write_bytes(content)
        assert modules.read_build_id(tmp_path / "note") == ""
    assert modules.read_build_id(tmp_path / "none") == ""


def test_gpus_are_nvidias_display_functions_with_the_driver_bound(paths: Paths) -> None:
    base = "sys/bus/pci/devices"
    make_tree(
        paths.root,
        {
            f"{base}/0000:3b:00.0/vendor": "0x10de\n",
            f"{base}/0000:3b:00.0/class": "0x030200\n",
            f"{base}/0000:3b:00.0/device": "0x20b0\n",
            f"{base}/0000:3b:00.0/driver": "-> ../../../bus/pci/drivers/vfio-pci",
            f"{base}/0000:3b:00.1/vendor": "0x10de\n",
            f"{base}/0000:3b:00.1/class": "0x040300\n",
            f"{base}/0000:5e:00.0/vendor": "0x15b3\n",
            f"{base}/0000:5e:00.0/class": "0x020000\n",
        },
    )
    assert gpus.read(paths) == (gpus.Gpu("0000:3b:00.0", 0x20B0, "vfio-pci"),)
    assert gpus.have_mellanox(paths)
    assert gpus.read(Paths(paths.root / "none")) == () and not gpus.have_mellanox(Paths(paths.root / "none"))


PARAMS = (
    'EnableGpuFirmware: 18\nDeviceFileMode: 432\nMemoryPoolSize: 4294967295\nRegistryDwords: "a=1;b=2"\nRmMsg: ""\n'
)


@pytest.mark.parametrize(
    ("words", "different"),
    [
        ("NVreg_DeviceFileMode=0660", []),
        ("NVreg_DeviceFileMode=0666", ["NVreg_DeviceFileMode: asked 0666, is 432"]),
        ("NVreg_DeviceFileMode=0x1b0 NVreg_MemoryPoolSize=-1", []),
        ("NVreg_EnableGpuFirmware=0", ["NVreg_EnableGpuFirmware: asked 0, is 18"]),
        ('NVreg_RegistryDwords="a=1;b=2" NVreg_RmMsg=""', []),
        ("NVreg_RegistryDwords=a=1", ['NVreg_RegistryDwords: asked a=1, is "a=1;b=2"']),
        ("NVreg_DeviceFileMode=08", ["NVreg_DeviceFileMode: asked 08, is 432"]),
    ],
)
def test_parameters_are_the_same_where_the_kernel_reads_them_so(paths: Paths, words: str, different: list[str]) -> None:
    make_tree(paths.root, {"proc/driver/nvidia/params": PARAMS})
    assert parameters.differing(paths, "nvidia", [words]) == different


def test_other_modules_show_their_parameters_in_sysfs(paths: Paths) -> None:
    make_tree(paths.root, {"sys/module/nvidia_modeset/parameters/vblank_sem_control": "Y\n"})
    assert parameters.differing(paths, "nvidia-modeset", ["vblank_sem_control=1"]) == []
    assert parameters.differing(paths, "nvidia-modeset", ["vblank_sem_control"]) == []
    assert parameters.differing(paths, "nvidia-modeset", ["vblank_sem_control=n"]) != []


@given(st.dictionaries(st.from_regex(r"[A-Za-z_]\w{0,9}", fullmatch=True), st.text("ab'\\#;= \t,", max_size=9)))
def test_parameters_survive_as_they_were_written(given_words: dict[str, str]) -> None:
    lines = [f'{name}="{value}"' for name, value in given_words.items()]
    assert parameters.split(lines) == parameters.split([" ".join(lines)]) == given_words


def test_parameters_no_longer_asked_for_leave_no_file(paths: Paths) -> None:
    parameters.write(paths, "nvidia-uvm", ["uvm_debug_prints=1"])
    parameters.write(paths, "nvidia-uvm", [])
    parameters.write(paths, "nvidia-uvm", [])
    assert not list(paths.modprobe_d.iterdir())


def test_nodes_are_made_where_missing_replaced_where_wrong_and_removed(paths: Paths) -> None:
    make_tree(paths.root, {"dev/nvidia7": "a file somebody wrote"})
    os.mknod(paths.dev / "nvidia0", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(paths.dev / "nvidiactl", stat.S_IFCHR | 0o600, os.makedev(195, 255))
    gpu = Node("nvidia0", 195, 0, 0o660, (0, 44))
    nodes = (Node("nvidiactl", 195, 255, 0o666), gpu, Node("nvidia7", 195, 7, 0o666))
    caps = Node("nvidia-caps/nvidia-cap1", 245, 1, 0o400)
    assert devices.create(paths, (*nodes, caps)) == ["nvidia0", "nvidia7", "nvidia-caps/nvidia-cap1"]
    status = (paths.dev / "nvidia0").stat()
    assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (195, 0)
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, 44)
    assert stat.S_IMODE((paths.dev / "nvidia-caps").stat().st_mode) == 0o755
    assert devices.create(paths, (*nodes, caps)) == [] and devices.missing(paths, (*nodes, caps)) == []
    (paths.dev / "nvidia-file").touch()
    assert devices.leftovers(paths) == ["nvidia-caps/nvidia-cap1", "nvidia0", "nvidia7", "nvidiactl"]
    devices.remove(paths, [*devices.leftovers(paths), "nvidia-file", "nvidia9"])
    assert [path.name for path in paths.dev.iterdir()] == ["nvidia-file"]


def test_a_node_that_cannot_be_made_is_told_with_its_numbers(paths: Paths) -> None:
    make_tree(paths.root, {"dev/nvidia0/inside": ""})
    with pytest.raises(DriverError, match=r"nvidia0 \(195:0\) could not be made") as failed:
        devices.create(paths, [Node("nvidia0", 195, 0, 0o666)])
    assert failed.value.code is Code.DEVICE_NODES_FAILED and "CAP_MKNOD" in failed.value.remedy


def test_no_nodes_without_the_driver_and_the_old_name_of_the_major_counts_first(paths: Paths) -> None:
    make_tree(paths.root, {"proc/devices": "Character devices:\n  1 mem\n 10 misc\n"})
    assert devices.wanted(paths) == ()
    (paths.root / "proc/devices").write_text("Character devices:\n195 nvidia\n195 nvidiactl\n")
    assert [(node.name, node.major, node.mode) for node in devices.wanted(paths)] == [("nvidiactl", 195, 0o666)]
    make_tree(paths.root, {"proc/driver/nvidia/params": "DeviceFileMode: 432\nDeviceFileUID: 5\nDeviceFileGID: 44\n"})
    assert devices.wanted(paths) == (Node("nvidiactl", 195, 255, 0o660, (5, 44)),)


def test_uvm_nodes_are_for_everyone_as_nvidia_modprobe_makes_them(paths: Paths) -> None:
    restricted = "DeviceFileMode: 432\nDeviceFileUID: 5\nDeviceFileGID: 44\n"
    numbers = "Character devices:\n195 nvidia\n510 nvidia-uvm\n"
    make_tree(paths.root, {"proc/devices": numbers, "proc/driver/nvidia/params": restricted})
    assert devices.wanted(paths)[1:] == (Node("nvidia-uvm", 510, 0, 0o666), Node("nvidia-uvm-tools", 510, 1, 0o666))


@pytest.fixture
def kmod(fake_bin: FakeBin) -> Kmod:
    return Kmod(fake_bin.environment)


@pytest.fixture
def tree(paths: Paths, fake_bin: FakeBin) -> Path:
    """A host below <root>/host with drm and what it needs, our nvidia.ko, and fake kmod tools."""
    make_tree(
        paths.root,
        {
            **{f"host/lib/modules/6.1/{name}": name for name in moduletree.HOST_INDEX},
            "host/lib/modules/6.1/kernel/drm/drm.ko": "drm",
            "host/lib/modules/6.1/kernel/i2c/i2c-core.ko": "i2c",
            "host/lib/modules/6.1/kernel/net/other.ko": "other",
            "opt/modules/nvidia.ko": "nvidia",
            "sys/module/video/refcnt": "0",
        },
    )
    files = "kernel/i2c/i2c-core.ko kernel/drm/drm.ko"
    fake_bin.add(
        "modprobe",
        f'[ "$6" = drm ] || exit 1\nfor file in {files}; do echo "insmod $2/lib/modules/$4/$file opt=1"; done',
    )
    fake_bin.add("depmod", ': > "$2/lib/modules/$3/modules.dep.bin"')
    return paths.root / "lib/modules/6.1"


def hashed(*files: Path) -> dict[Path, str]:
    return {file: sha256(file) for file in files}


def test_the_tree_holds_ours_and_only_the_hosts_modules_that_are_needed(
    paths: Paths, tree: Path, kmod: Kmod, fake_bin: FakeBin
) -> None:
    host = HostRoot(paths.root / "host", Reach.MOUNT)
    ours = hashed(paths.root / "opt/modules/nvidia.ko")
    assert moduletree.assemble(paths, "6.1", ours, host, kmod, Hashes()) == ("drm",)
    found = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if not path.is_dir()}
    assert found == {
        *moduletree.HOST_INDEX,
        "modules.dep.bin",
        "kernel/drm/drm.ko",
        "kernel/i2c/i2c-core.ko",
        "updates/driverctr/nvidia.ko",
    }
    link = tree / "updates/driverctr/nvidia.ko"
    assert not link.readlink().is_absolute() and link.read_text() == "nvidia"
    assert "modprobe -d" in fake_bin.calls[0] and "video" not in " ".join(fake_bin.calls)
    assert fake_bin.calls[-1] == f"depmod -b {paths.root} 6.1"


def test_what_is_built_into_the_kernel_is_not_asked_for(
    paths: Paths, tree: Path, kmod: Kmod, fake_bin: FakeBin
) -> None:
    builtin = "kernel/drivers/i2c/i2c-core.ko\nkernel/drivers/char/ipmi/ipmi_msghandler.ko\n"
    make_tree(paths.root, {"host/lib/modules/6.1/modules.builtin": builtin})
    ours = hashed(paths.root / "opt/modules/nvidia.ko")
    assert moduletree.assemble(paths, "6.1", ours, HostRoot(paths.root / "host", Reach.MOUNT), kmod, Hashes()) == (
        "drm",
    )
    assert [call.split()[-1] for call in fake_bin.calls if "--show-depends" in call] == ["ipmi_devintf", "drm"]


def test_depmod_runs_again_only_when_something_changed_and_stale_modules_go(
    paths: Paths, tree: Path, kmod: Kmod, fake_bin: FakeBin
) -> None:
    ours = hashed(paths.root / "opt/modules/nvidia.ko")
    make_tree(paths.root, {"lib/modules/6.1/updates/driverctr/nvidia-old.ko.xz": ""})

    def depmods() -> int:
        return sum(call.startswith("depmod") for call in fake_bin.calls)

    assert moduletree.assemble(paths, "6.1", ours, None, kmod, Hashes()) == () and depmods() == 1
    assert [path.name for path in (tree / "updates/driverctr").iterdir()] == ["nvidia.ko"]
    moduletree.assemble(paths, "6.1", ours, None, kmod, Hashes())
    assert depmods() == 1
    make_tree(paths.root, {"opt/modules/nvidia-uvm.ko": "uvm"})
    moduletree.assemble(paths, "6.1", hashed(*ours, paths.root / "opt/modules/nvidia-uvm.ko"), None, kmod, Hashes())
    assert depmods() == 2


def test_a_module_from_another_filesystem_is_copied_once(
    paths: Paths, tree: Path, kmod: Kmod, fake_bin: FakeBin
) -> None:
    with_shm = Path("/dev/shm") / f"driverctr-test-{os.getpid()}"
    with_shm.write_text("nvidia")
    try:
        target = tree / "updates/driverctr" / with_shm.name
        for _ in range(2):
            moduletree.assemble(paths, "6.1", hashed(with_shm), None, kmod, Hashes())
            assert target.read_text() == "nvidia" and not target.is_symlink()
        assert fake_bin.calls == [f"depmod -b {paths.root} 6.1"]
    finally:
        with_shm.unlink()


def test_a_tree_that_cannot_be_written_is_told(paths: Paths, tree: Path, kmod: Kmod) -> None:
    make_tree(paths.root, {"lib/modules": "a file"})
    with pytest.raises(DriverError, match=r"lib/modules/6\.1 cannot be written") as failed:
        moduletree.assemble(paths, "6.1", {}, None, kmod, Hashes())
    assert failed.value.code is Code.LOAD_FAILED


def test_a_module_that_is_gone_is_not_taken_for_a_tree_that_cannot_be_written(
    paths: Paths, tree: Path, kmod: Kmod
) -> None:
    with pytest.raises(DriverError, match=r"gone\.ko: No such file") as failed:
        moduletree.assemble(paths, "6.1", {paths.root / "gone.ko": "0" * 64}, None, kmod, Hashes())
    assert failed.value.code is Code.NO_MODULES


def test_what_vanishes_from_sysfs_and_procfs_while_it_is_read_is_not_there(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, module = "sys/bus/pci/devices/0000:3b:00.0", "sys/module/nvidia"
    make_tree(
        paths.root,
        {
            f"{device}/vendor": "0x10de\n",
            f"{device}/class": "0x030200\n",
            f"{device}/driver": "-> ../../../bus/pci/drivers/nvidia",
            f"{module}/refcnt": "1\n",
            f"{module}/holders/nvidia_uvm": None,
            f"{module}/parameters/a": "1\n",
            "proc/devices": "Character devices:\n195 nvidia\n236 nvidia-caps\n",
            "proc/driver/nvidia/gpus/0000:3b:00.0/information": "Device Minor: 0\n",
            "proc/driver/nvidia/capabilities/mig/config": "DeviceFileMinor: 1\n",
            "sys/class/infiniband/mlx5_0": None,
        },
    )

    def vanish(path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    with monkeypatch.context() as racing:
        racing.setattr(Path, "readlink", vanish)
        assert [gpu.driver for gpu in gpus.read(paths)] == [""]
    assert [gpu.driver for gpu in gpus.read(paths)] == ["nvidia"]
    with monkeypatch.context() as racing:
        racing.setattr(os, "listdir", vanish)
        assert gpus.read(paths) == () and not gpus.have_mellanox(paths)
        loaded = modules.read(paths, "nvidia")
        assert loaded is not None and loaded.holders == () and modules.read_parameters(paths, "nvidia") == {}
        assert [node.name for node in devices.wanted(paths)] == ["nvidiactl"]
        assert fabric.read(paths).switches == ()
    assert [node.name for node in devices.wanted(paths)] == ["nvidiactl", "nvidia0", "nvidia-caps/nvidia-cap1"]


def test_a_bus_that_cannot_be_looked_at_is_not_an_empty_one(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        gpus.read(paths)
