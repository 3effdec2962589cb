"""What preflight judges, read from fake trees: privilege, the kernel's rules, GPUs and their support, fabric, host."""

import json
from pathlib import Path

import pytest

from driverctr import node
from driverctr.facts import fabric, gpus, hostdriver, loading, privilege, supported
from driverctr.facts.gpus import Gpu
from driverctr.facts.hostdriver import HostDriver
from driverctr.facts.loading import Loading
from driverctr.facts.modules import LoadedModule
from driverctr.facts.privilege import Privilege
from driverctr.facts.supported import Support
from driverctr.modules import Wish
from driverctr.paths import Paths
from tests.unit.conftest import make_tree
from tests.unit.module_files import module_bytes

RELEASE = "6.1.0-56-amd64"
HOST = {"proc/1/ns/mnt": "-> mnt:[1]", "proc/self/ns/mnt": "-> mnt:[2]", "proc/1/root/lib/modules/x": ""}

ALL = (1 << 41) - 1
SYS_RESOURCE = 1 << 24


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        (ALL, ()),
        (ALL & ~SYS_RESOURCE, ()),
        (ALL & ~(1 << 16), ("SYS_MODULE",)),
        (0xA80425FB, ("SYS_MODULE", "SYS_PTRACE", "SYS_ADMIN")),  # docker's default set
        (0, ("SYS_MODULE", "SYS_CHROOT", "SYS_PTRACE", "SYS_ADMIN", "MKNOD")),
    ],
)
def test_only_what_we_need_is_missed(paths: Paths, held: int, missing: tuple[str, ...]) -> None:
    make_tree(paths.root, {"proc/self/status": f"Name:\tx\nCapPrm:\t0\nCapEff:\t{held:016x}\n"})
    assert privilege.read(paths) == Privilege(missing, False)


def test_capabilities_that_cannot_be_read_are_unknown_and_a_user_namespace_is_seen(paths: Paths) -> None:
    make_tree(paths.root, {"proc/self/ns/user": "-> user:[4026532999]"})
    assert privilege.read(paths) == Privilege(None, True)


@pytest.mark.parametrize(
    ("files", "rules"),
    [
        ({"proc/modules": ""}, Loading(True, False, False, "")),
        ({}, Loading(False, False, False, "")),
        (
            {"proc/modules": "", "proc/sys/kernel/modules_disabled": "1\n", "sys/kernel/security/lsm": "lockdown"},
            Loading(True, True, False, "none"),
        ),
        (
            {
                "proc/modules": "",
                "sys/module/module/parameters/sig_enforce": "Y\n",
                "sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
            },
            Loading(True, False, True, "integrity"),
        ),
        (
            {**HOST, "proc/modules": "", "proc/1/root/sys/kernel/security/lockdown": "[none] integrity\n"},
            Loading(True, False, False, "none"),
        ),
    ],
)
def test_the_kernels_rules_are_read_and_lockdown_through_the_hosts_root(
    paths: Paths, files: dict[str, str], rules: Loading
) -> None:
    make_tree(paths.root, files)
    assert loading.read(paths) == rules


def test_a_signature_is_known_by_the_files_end(tmp_path: Path) -> None:
    file = tmp_path / "nvidia.ko"
    assert not loading.is_signed(file)
    file.write_bytes(b"short")
    assert not loading.is_signed(file)
    file.write_bytes(b"\x7fELF" * 100)
    assert not loading.is_signed(file)
    file.write_bytes(b"\x7fELF" * 100 + b"PKCS#7" + b"~Module signature appended~\n")
    assert loading.is_signed(file)


def test_a_gpu_has_its_subsystem_and_who_claims_it(paths: Paths) -> None:
    folder = "sys/bus/pci/devices/0000:01:00.0"
    gpu = {"vendor": "0x10de", "class": "0x030200", "device": "0x20b0"}
    more = {"subsystem_vendor": "0x10de", "subsystem_device": "0x144e", "driver_override": "(null)"}
    make_tree(paths.root, {f"{folder}/{name}": text for name, text in {**gpu, **more}.items()})
    (found,) = gpus.read(paths)
    assert found == Gpu("0000:01:00.0", 0x20B0, "", (0x10DE, 0x144E)) and found.taken_by == ""
    (paths.root / folder / "driver_override").write_text("vfio-pci\n")
    assert gpus.read(paths)[0].taken_by == "vfio-pci"
    (paths.root / folder / "driver").symlink_to("../../bus/pci/drivers/nvidia")
    assert gpus.read(paths)[0].taken_by == ""
    (paths.root / folder / "driver").unlink()
    (paths.root / folder / "driver").symlink_to("../../bus/pci/drivers/nouveau")
    assert gpus.read(paths)[0].taken_by == "nouveau"


def chip(device: str, name: str, *features: str, **more: str) -> dict[str, object]:
    return {"devid": device, "name": name, "features": list(features), **more}


OLD_LIST = [
    chip("0x102D", "Tesla K80", legacybranch="470.xx"),
    chip("0x1DB1", "Tesla V100"),
    chip("0x1E81", "RTX 2080", "kernelopen"),
    chip("0x20B0", "A100", "kernelopen"),
    chip("0x20B0", "A100-PG509", "kernelopen", subdevid="0x1450", subvendorid="0x10DE"),
    chip("0x28F8", "RTX 2000", "kernelopen"),
]
NEW_LIST = [
    *OLD_LIST[:2],
    chip("0x20B0", "A100", "kernelopen", "gsp_proprietary_supported"),
    chip("0x2901", "B200", "kernelopen"),
]
BOTH = frozenset(("open", "proprietary"))


@pytest.mark.parametrize(
    ("chips", "device", "subsystem", "support"),
    [
        (OLD_LIST, 0x102D, 0, Support("Tesla K80", "470.xx", types=frozenset(("proprietary",)))),
        (OLD_LIST, 0x1DB1, 0, Support("Tesla V100", types=frozenset(("proprietary",)))),
        (OLD_LIST, 0x20B0, 0x144E, Support("A100", types=BOTH)),
        (OLD_LIST, 0x20B0, 0x1450, Support("A100-PG509", types=BOTH)),
        (OLD_LIST, 0x2901, 0, Support(too_new=True)),
        (OLD_LIST, 0x28FF, 0, Support()),
        (OLD_LIST, 0x1EB8, 0, Support()),  # the T4 is in no list of 535, and is driven all the same
        (NEW_LIST, 0x20B0, 0, Support("A100", types=BOTH)),
        (NEW_LIST, 0x2901, 0, Support("B200", types=frozenset(("open",)))),
        (NEW_LIST, 0x1DB1, 0, Support("Tesla V100", types=frozenset(("proprietary",)))),
    ],
)
def test_nvidias_list_is_understood(
    tmp_path: Path, chips: list[dict[str, object]], device: int, subsystem: int, support: Support
) -> None:
    make_tree(tmp_path, {str(supported.LIST): json.dumps({"chips": chips})})
    found = supported.read(tmp_path)
    assert found is not None
    assert found.look_up(Gpu("0000:01:00.0", device, "", (0x10DE, subsystem))) == support


@pytest.mark.parametrize("text", [None, "no json", "[]", '{"chips": []}', '{"chips": [{"devid": "0x1"}]}'])
def test_a_list_that_is_missing_or_not_understood_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        make_tree(tmp_path, {str(supported.LIST): text})
    assert supported.read(tmp_path) is None


def test_gpus_of_others_are_not_looked_up(paths: Paths) -> None:
    make_tree(paths.root, {str(supported.LIST): json.dumps({"chips": OLD_LIST})})
    seen = (Gpu("a", 0x20B0, ""), Gpu("b", 0x20B0, "vfio-pci"))
    assert set(supported.of_gpus(paths, seen) or ()) == {"a"}
    assert supported.of_gpus(paths, ()) is None


def test_switches_and_nvlink5_are_found_and_old_chip_sets_are_not(paths: Paths) -> None:
    def function(address: str, device: str, vendor: str = "0x10de", kind: str = "0x068000") -> dict[str, str]:
        folder = f"sys/bus/pci/devices/{address}"
        return {f"{folder}/vendor": vendor, f"{folder}/class": kind, f"{folder}/device": device}

    make_tree(
        paths.root,
        {
            **function("0000:85:00.0", "0x1af1"),
            **function("0000:86:00.0", "0x22a3"),
            **function("0000:00:03.0", "0x0262"),
            **function("0000:00:04.0", "0x22a3", vendor="0x8086"),
            **function("0000:01:00.0", "0x20b0", kind="0x030200"),
            "sys/class/infiniband/mlx5_0/device/vpd": "ConnectX-7",
            "sys/class/infiniband/mlx5_4/device/vpd": "PN SW_MNG SN",
        },
    )
    assert fabric.read(paths) == fabric.Fabric(("0000:85:00.0", "0000:86:00.0"), ("mlx5_4",))


def test_without_the_hosts_root_nothing_is_said_of_its_driver(paths: Paths) -> None:
    make_tree(paths.root, {**HOST, "usr/bin/nvidia-smi": "ours"})
    (paths.root / "proc/1/ns/mnt").unlink()
    (paths.root / "proc/1/ns/mnt").symlink_to("mnt:[2]")
    assert hostdriver.read(paths, RELEASE) == HostDriver(visible=False)


@pytest.mark.parametrize(
    ("content", "mode", "found"), [("ELF", 0o755, True), ("", 0o755, False), ("ELF", 0o644, False)]
)
def test_only_a_whole_nvidia_smi_of_the_host_counts(paths: Paths, content: str, mode: int, found: bool) -> None:
    make_tree(paths.root, {**HOST, "proc/1/root/usr/sbin/nvidia-smi": "-> /opt/smi", "proc/1/root/opt/smi": content})
    (paths.root / "proc/1/root/opt/smi").chmod(mode)
    read = hostdriver.read(paths, RELEASE)
    assert read.visible and (read.smi == paths.root / "proc/1/root/opt/smi") is found


def test_a_link_on_the_host_into_our_driver_root_is_no_driver_of_the_hosts(paths: Paths) -> None:
    root = "run/nvidia/driver/usr/bin/nvidia-smi"
    make_tree(paths.root, {**HOST, "proc/1/root/usr/bin/nvidia-smi": f"-> /{root}", f"proc/1/root/{root}": "ELF"})
    (paths.root / "proc/1/root" / root).chmod(0o755)
    assert hostdriver.read(paths, RELEASE).smi is None


@pytest.mark.parametrize("name", ["updates/dkms/nvidia.ko", "updates/dkms/nvidia-current.ko.xz"])
def test_the_hosts_module_is_found_by_its_index(paths: Paths, name: str) -> None:
    tree = f"proc/1/root/lib/modules/{RELEASE}"
    dep = f"updates/nvidia-uvm.ko: {name}\nkernel/fs/fuse.ko:\n{name}: kernel/drm.ko\n"
    make_tree(paths.root, {**HOST, f"{tree}/modules.dep": dep, f"{tree}/{name}": ""})
    assert hostdriver.read(paths, RELEASE).module == paths.root / tree / name
    assert hostdriver.read(paths, "6.2").module is None


def test_a_loaded_module_is_the_hosts_only_if_it_is_the_same_build(tmp_path: Path) -> None:
    file = tmp_path / "nvidia.ko"
    file.write_bytes(module_bytes({"name": "nvidia"}, b"\xab" * 20))
    loaded = LoadedModule("nvidia", "535.1", "", "ab" * 20, "live", 0, ())
    assert node.is_loaded(file, loaded) is True
    assert node.is_loaded(file, LoadedModule("nvidia", "535.1", "", "cd" * 20, "live", 0, ())) is False
    assert node.is_loaded(file, None) is False and node.is_loaded(None, loaded) is False
    packed = tmp_path / "nvidia.ko.xz"
    packed.write_bytes(b"\xfd7zXZ packed")
    assert node.is_loaded(packed, loaded) is None
    unmarked = tmp_path / "unmarked.ko"
    unmarked.write_bytes(module_bytes({"name": "nvidia"}, b""))
    anonymous = LoadedModule("nvidia", "535.1", "", "", "live", 0, ())
    assert node.is_loaded(unmarked, anonymous) is None, "two without a build-id are not the same"
    assert node.is_loaded(file, anonymous) is None and node.is_loaded(unmarked, loaded) is None


def test_room_for_a_build_is_free_disk_memory_and_headers_of_the_host(paths: Paths) -> None:
    build = f"lib/modules/{RELEASE}/build"
    make_tree(
        paths.root,
        {
            "var/tmp": None,
            "proc/meminfo": "MemAvailable:    1000 kB\n",
            f"{build}/Makefile": "",
            f"{build}/include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n',
        },
    )
    room = node.read_room(paths, Wish(RELEASE, "535.309.01", "open"))
    assert room.scratch == paths.root / "var/tmp" and room.disk and room.memory == 1_024_000
    assert room.headers.endswith(f"/{build}")
    assert node.read_room(paths, Wish("6.2", "535.309.01", "open")).headers == ""
    (paths.root / "var/tmp").rmdir()
    assert node.read_room(paths, Wish(RELEASE, "535.309.01", "open")).disk is None, "unknown, not full"


def test_why_packages_cannot_have_the_headers_is_known_before_they_are_asked(paths: Paths) -> None:
    make_tree(paths.root, {"host-etc/os-release": 'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n'})
    make_tree(paths.root, {"etc/os-release": "ID=debian\nVERSION_ID=12\n"})
    assert node.read_mismatch(paths).startswith("the host is Ubuntu 24.04.1 LTS, whose kernels are not")
    (paths.root / "etc/os-release").write_text("ID=flatcar\n")
    assert "ID=flatcar" in node.read_mismatch(paths)
    (paths.root / "host-etc/os-release").unlink()
    (paths.root / "etc/os-release").write_text("ID=ubuntu\nVERSION_ID=24.04\n")
    assert node.read_mismatch(paths) == ""
