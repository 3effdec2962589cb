"""Who uses the driver, in which order it unloads, and what parameters and nodes it should have."""

import os
import struct
from pathlib import Path

import pytest

from driverctr import devices, parameters
from driverctr.errors import Code, DriverError
from driverctr.facts import holders, modules
from driverctr.facts.holders import Holder
from driverctr.facts.processes import Identity
from driverctr.kmod import Kmod
from driverctr.paths import Paths
from tests.unit.conftest import FakeBin, make_tree


def loaded(paths: Paths, name: str, refcnt: int, *held_by: str) -> None:
    """A module in sysfs."""
    note = struct.pack("<III", 4, 4, 3) + b"GNU\0" + bytes.fromhex("c0ffee11")
    base = f"sys/module/{name}"
    make_tree(
        paths.root, {f"{base}/refcnt": f"{refcnt}\n", f"{base}/initstate": "live\n", f"{base}/version": "535.1\n"}
    )
    make_tree(paths.root, {f"{base}/holders/{holder}": None for holder in held_by})
    (paths.root / base / "notes").mkdir()
    (paths.root / base / "notes/.note.gnu.build-id").write_bytes(note)


def test_stack_is_the_real_holders_graph_and_unloads_holders_first(paths: Paths) -> None:
    loaded(paths, "nvidia", 4, "nvidia_uvm", "nvidia_modeset", "nvidia_peermem", "gdrdrv")
    loaded(paths, "nvidia_modeset", 1, "nvidia_drm")
    for name in ("nvidia_uvm", "nvidia_peermem", "gdrdrv", "nvidia_drm"):
        loaded(paths, name, 0)
    loaded(paths, "drm", 7, "nvidia_drm")
    stack = modules.read_stack(paths)
    assert set(stack) == {"nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_peermem", "gdrdrv", "nvidia_drm"}
    order = modules.unload_order(stack)
    assert order[-1] == "nvidia"
    assert order.index("nvidia_drm") < order.index("nvidia_modeset")
    assert stack["nvidia"].build_id == "c0ffee11"


@pytest.mark.parametrize(
    ("refcnt", "found", "own", "said"),
    [
        (1, [], set(), None),
        (2, [Holder(7, "nvidia-persistenced", 1, (("nvidia", 1),), 55)], {(7, 55)}, None),
        (2, [Holder(7, "nvidia-persistenced", 1, (("nvidia", 1),), 56)], {(7, 55)}, "pid 7 (nvidia-persistenced)"),
        (3, [Holder(7, "nvidia-persistenced", 1, (("nvidia", 1),), 55)], {(7, 55)}, "1 reference(s) by holders not"),
        (2, [Holder(9, "train.py", 1, (("nvidia", 1),))], {(7, 55)}, "pid 9 (train.py)"),
        (1, [Holder(9, "innocent", 1, (("nvidia_uvm", 1),))], set(), None),
    ],
)
def test_use_is_told_from_refcnt_holders_and_our_own_daemons(
    paths: Paths, refcnt: int, found: list[Holder], own: set[Identity], said: str | None
) -> None:
    loaded(paths, "nvidia", refcnt, "nvidia_uvm")
    loaded(paths, "nvidia_uvm", 0)
    used = holders.in_use(modules.read_stack(paths), found, own)
    if said is None:
        assert not used
    else:
        assert (
            [use.module for use in used] == ["nvidia"] and said in str(used[0]) and f"refcnt {refcnt}" in str(used[0])
        )


PARAMS = 'EnableStreamMemOPs: 1\nRegistryDwords: "RMTest=1"\nDeviceFileMode: 438\n'


@pytest.mark.parametrize(
    ("lines", "different"),
    [
        (("NVreg_EnableStreamMemOPs=0x1",), []),
        (('NVreg_RegistryDwords="RMTest=1"',), []),
        (("NVreg_EnableStreamMemOPs=0",), ["NVreg_EnableStreamMemOPs: asked 0, is 1"]),
        (("NVreg_EnableStreamMemOPs=0 NVreg_EnableStreamMemOPs=1",), []),
        (("NVreg_Unseen=3",), []),
    ],
)
def test_parameters_are_compared_as_the_driver_writes_them(
    paths: Paths, lines: tuple[str, ...], different: list[str]
) -> None:
    make_tree(paths.root, {"proc/driver/nvidia/params": PARAMS})
    assert parameters.differing(paths, "nvidia", lines) == different


def test_our_defaults_only_where_the_module_lists_them(paths: Paths) -> None:
    make_tree(paths.root, {"drivers/nvidia.conf": "\nNVreg_EnableGpuFirmware=0 NVreg_A=1\n"})
    with_it = parameters.asked(paths, "nvidia", {"NVreg_CoherentGPUMemoryMode"})
    without = parameters.asked(paths, "nvidia", ())
    assert with_it[0] == "NVreg_CoherentGPUMemoryMode=driver"
    assert without == ("NVreg_EnableGpuFirmware=0 NVreg_A=1",)
    assert parameters.wants_no_firmware(without)
    parameters.write(paths, "nvidia", without)
    written = (paths.modprobe_d / "nvidia.conf").read_text()
    assert written == "options nvidia NVreg_EnableGpuFirmware=0 NVreg_A=1\n"


def test_an_open_quotation_mark_is_refused(paths: Paths) -> None:
    with pytest.raises(DriverError, match="No closing quotation") as refused:
        parameters.split(['NVreg_RegistryDwords="a=1'])
    assert refused.value.code is Code.BAD_SETTING


def test_device_nodes_have_the_kernels_numbers_and_wrong_ones_are_replaced(paths: Paths) -> None:
    make_tree(
        paths.root,
        {
            "proc/devices": "Character devices:\n195 nvidia-frontend\n240 nvidia-uvm\n241 nvidia-caps\n",
            "proc/driver/nvidia/params": PARAMS,
            "proc/driver/nvidia/gpus/0001:01:00.0/information": "Model: \t X\nDevice Minor: \t 2\n",
            "proc/driver/nvidia/capabilities/mig/config": "DeviceFileMinor: 1\nDeviceFileMode: 256\n",
            "sys/module/nvidia_modeset/refcnt": "0",
            "dev": None,
        },
    )
    nodes = devices.wanted(paths)
    assert {(node.name, node.major, node.minor, oct(node.mode)) for node in nodes} == {
        ("nvidiactl", 195, 255, "0o666"),
        ("nvidia2", 195, 2, "0o666"),
        ("nvidia-uvm", 240, 0, "0o666"),
        ("nvidia-uvm-tools", 240, 1, "0o666"),
        ("nvidia-modeset", 195, 254, "0o666"),
        ("nvidia-caps/nvidia-cap1", 241, 1, "0o400"),
    }
    assert len(devices.missing(paths, nodes)) == 6


@pytest.fixture
def kmod(fake_bin: FakeBin, paths: Paths) -> Kmod:
    return Kmod(fake_bin.environment, paths=paths)


def test_kmod_tools_are_called_as_documented(kmod: Kmod, fake_bin: FakeBin) -> None:
    for name in ("modprobe", "rmmod", "depmod"):
        fake_bin.add(name)
    kmod.load("nvidia", 5)
    kmod.unload(["nvidia_uvm", "nvidia"], 5)
    kmod.index("6.1.0", Path("/"))
    assert fake_bin.calls == [
        "modprobe nvidia",
        "rmmod nvidia_uvm nvidia",
        "depmod -b / 6.1.0",
    ]


def test_a_failing_tool_is_told_in_its_own_words(kmod: Kmod, fake_bin: FakeBin) -> None:
    fake_bin.add("modprobe", 'echo "modprobe: ERROR: could not insert: No such device" >&2; exit 1')
    with pytest.raises(DriverError, match="No such device") as failed:
        kmod.load("nvidia", 5)
    assert failed.value.code is Code.NO_DEVICE
    with pytest.raises(DriverError, match="rmmod"):
        kmod.unload(["nvidia"], 5)


def test_a_tool_that_hangs_is_given_up(kmod: Kmod, fake_bin: FakeBin) -> None:
    fake_bin.add("rmmod", "exec /bin/sleep 30")
    with pytest.raises(DriverError, match="did not end within 1 s"):
        kmod.unload(["nvidia"], 1)


def test_a_node_that_cannot_be_made_is_told(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "mknod", refuse)
    with pytest.raises(DriverError, match=r"nvidiactl.*Operation not permitted") as failed:
        devices.create(paths, [devices.Node("nvidiactl", 195, 255, 0o666, (0, 0))])
    assert failed.value.code is Code.DEVICE_NODES_FAILED
