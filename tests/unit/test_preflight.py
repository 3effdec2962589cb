"""Every check: ok on a good node, refused with its own code and a remedy, unknown where it cannot be told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driverctr import config as settings
from driverctr import doctor, planview, preflight
from driverctr.daemons import Daemon
from driverctr.errors import Code
from driverctr.facts.fabric import Fabric
from driverctr.facts.gpus import Gpu
from driverctr.facts.hostdriver import HostDriver
from driverctr.facts.loading import Loading
from driverctr.facts.modules import LoadedModule
from driverctr.facts.privilege import Privilege
from driverctr.facts.supported import Support
from driverctr.modules import Wish
from driverctr.mounts.rootstate import RootState
from driverctr.node import Room
from driverctr.plan import make
from driverctr.planview import View
from driverctr.preflight import Check, Result, judge
from driverctr.survey import Facts
from driverctr.wishes import choose_type
from tests.unit.good_node import A100, BOTH, GOOD_NODE, facts, node

CONFIG = settings.load({})
WAIT = settings.load({"NO_GPU": "wait"})
RULES = GOOD_NODE.loading
V100 = Gpu("0002:01:00.0", 0x1DB1, "")
OPEN = Wish("6.1.0-56-amd64", "535.309.01", "open")
ROOM = Room(Path("/var/tmp"), 9 * 10**9, 4 * 10**9, "process 1's root: /usr/src/linux")


def check(name: str, known: Facts, config: settings.Config = CONFIG) -> Check:
    return next(found for found in judge(config, known, building=True) if found.name == name)


def with_gpus(*gpus: Gpu, support: dict[str, Support] | None = None, **changes: Any) -> Facts:
    found = {gpu.address: Support("a GPU", types=BOTH) for gpu in gpus} | (support or {})
    return facts(gpus=gpus, node=replace(GOOD_NODE, support=found), **changes)


def test_a_good_node_passes_every_check() -> None:
    checks = judge(CONFIG, facts(), building=True)
    assert {found.result for found in checks} == {Result.OK} and all(found.evidence for found in checks)
    assert not make(CONFIG, facts()).blockers and not make(CONFIG, facts()).warnings


SMI = Path("/proc/1/root/usr/bin/nvidia-smi")
HOST_FILE = Path("/proc/1/root/lib/modules/6.1.0-56-amd64/updates/dkms/nvidia.ko")
LOADED = {"nvidia": LoadedModule("nvidia", "470.1", "", "", "live", 3, ())}

REFUSED = [
    ("privilege", node(privilege=Privilege(("SYS_MODULE", "MKNOD"), False)), Code.NO_PRIVILEGE, "SYS_MODULE, MKNOD"),
    ("privilege", node(privilege=Privilege((), True)), Code.NO_PRIVILEGE, "user namespace"),
    ("run-folder", facts(driver_root=RootState((), False, (), "mounted private")), Code.NOT_SHARED, "private"),
    ("module-support", node(loading=replace(RULES, supported=False)), Code.NO_MODULE_SUPPORT, "/proc/modules"),
    ("module-support", node(loading=replace(RULES, disabled=True)), Code.NO_MODULE_SUPPORT, "modules_disabled"),
    ("signatures", node(loading=replace(RULES, enforced=True)), Code.SIGNATURE_NEEDED, "sig_enforce"),
    ("signatures", node(loading=replace(RULES, lockdown="integrity")), Code.SIGNATURE_NEEDED, "integrity"),
    ("host-driver", node(host_driver=HostDriver(True, smi=SMI)), Code.HOST_DRIVER, str(SMI)),
    (
        "host-driver",
        node(host_driver=HostDriver(True, module=HOST_FILE), host_module_loaded=True),
        Code.HOST_DRIVER,
        str(HOST_FILE),
    ),
    ("gpu", facts(gpus=()), Code.NO_GPU, "no NVIDIA GPU"),
    ("gpu-free", with_gpus(replace(A100, driver="vfio-pci")), Code.GPU_TAKEN, "taken by vfio-pci"),
    ("gpu-free", with_gpus(replace(A100, reserved="vfio-pci")), Code.GPU_TAKEN, "taken by vfio-pci"),
    ("gpu-free", with_gpus(replace(A100, driver="nouveau")), Code.GPU_TAKEN, "taken by nouveau"),
    (
        "gpu-support",
        with_gpus(V100, support={V100.address: Support("Tesla K80", legacy="470.xx")}),
        Code.GPU_LEGACY,
        "470.xx",
    ),
    ("gpu-support", with_gpus(V100, support={V100.address: Support(too_new=True)}), Code.GPU_TOO_NEW, "does not know"),
    (
        "gpu-support",
        with_gpus(V100, support={V100.address: Support("V100", types=frozenset(("proprietary",)))}, wish=OPEN),
        Code.WRONG_MODULE_TYPE,
        "open",
    ),
    ("fabric", node(fabric=Fabric(("0000:85:00.0",), ())), Code.FABRIC_MANAGER_MISSING, "0000:85:00.0"),
    ("fabric", node(fabric=Fabric((), ("mlx5_4",))), Code.FABRIC_MANAGER_MISSING, "mlx5_4"),
    ("in-use", facts(stack=LOADED), Code.IN_USE, "refcnt 3"),
    ("build-disk", node(room=replace(ROOM, disk=900_000_000)), Code.NO_SPACE, "0.9 GB free"),
    ("build-memory", node(room=replace(ROOM, memory=300_000_000)), Code.NO_MEMORY, "300 MB"),
]


@pytest.mark.parametrize(("name", "known", "code", "evidence"), REFUSED)
def test_what_is_refused_has_a_code_evidence_and_a_remedy_and_blocks_the_plan(
    name: str, known: Facts, code: Code, evidence: str
) -> None:
    found = check(name, known)
    assert (found.result, found.code) == (Result.REFUSED, code)
    assert evidence in found.evidence and found.remedy
    if not name.startswith("build"):
        assert [blocker.code for blocker in make(CONFIG, known).blockers] == [code]
        assert code.value in planview.describe(View(make(CONFIG, known)))


@pytest.mark.parametrize(
    ("name", "known", "evidence"),
    [
        ("privilege", node(privilege=Privilege(None, False)), "does not tell"),
        ("signatures", node(loading=replace(RULES, lockdown="")), "cannot be seen"),
        ("signatures", node(loading=replace(RULES, enforced=True), modules_signed=True), "only a load tells"),
        ("host-driver", node(host_driver=HostDriver(False)), "cannot be seen"),
        ("host-driver", node(host_driver=HostDriver(True, module=HOST_FILE), host_module_loaded=None), "not tell"),
        ("gpu-support", node(support=None), "no list"),
        ("gpu-support", node(support={A100.address: Support()}), "not in the list"),
        ("headers", node(room=replace(ROOM, headers="")), "network"),
        ("build-disk", node(room=None), "not looked at"),
        ("build-disk", node(room=replace(ROOM, disk=None)), "does not tell how much"),
        ("build-memory", node(room=None), "not looked at"),
        ("distribution", node(host=None), "/host-etc/os-release"),
    ],
)
def test_what_cannot_be_told_is_said_and_blocks_nothing(name: str, known: Facts, evidence: str) -> None:
    found = check(name, known)
    assert found.result is Result.UNKNOWN and evidence in found.evidence
    assert not make(CONFIG, known).blockers


def test_waiting_for_a_gpu_is_no_refusal() -> None:
    assert check("gpu", facts(gpus=()), WAIT).result is Result.UNKNOWN
    assert not make(WAIT, facts(gpus=())).blockers


@pytest.mark.parametrize(
    ("known", "warning"),
    [
        (with_gpus(A100, replace(V100, driver="vfio-pci")), "taken by vfio-pci"),
        (with_gpus(A100, replace(V100, driver="nouveau")), "taken by nouveau"),
        (with_gpus(A100, V100, support={V100.address: Support("K80", legacy="470.xx")}), "470.xx"),
        (node(host_driver=HostDriver(True, module=HOST_FILE)), "next boot"),
        (
            node(lacks=("open_tree (5.2): a gap", "pidfd_open (5.3): a delay")),
            "lacks open_tree (5.2): a gap; pidfd_open",
        ),
        (node(room=replace(ROOM, headers="", mismatch="the host is X")), "no headers can come from this image's rep"),
    ],
)
def test_what_keeps_nothing_from_working_is_a_warning(known: Facts, warning: str) -> None:
    made = make(CONFIG, known)
    assert not made.blockers
    assert warning in " ".join(made.warnings) and warning in planview.describe(View(made))


def test_the_hosts_distribution_is_shown_and_a_mismatch_is_nothing_where_the_host_has_headers() -> None:
    known = node(room=replace(ROOM, mismatch="the host is X"))
    assert check("distribution", known).evidence == "the host is Debian GNU/Linux 12 (bookworm)"
    made = make(CONFIG, known)
    seen = planview.look(made, known)
    assert not made.warnings and "  host          Debian GNU/Linux 12 (bookworm)\n" in planview.describe(seen)


def test_signed_modules_with_a_signature_forced_are_left_to_the_kernel() -> None:
    known = node(loading=Loading(True, False, True, "integrity"), modules_signed=True)
    assert not make(CONFIG, known).blockers


def test_a_fabric_manager_that_is_started_serves_a_fabric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "DAEMONS", (Daemon(preflight.FABRIC_MANAGER, (), ""),))
    assert check("fabric", node(fabric=Fabric(("0000:85:00.0",), ()))).result is Result.OK


def test_the_room_for_a_build_is_asked_only_where_one_is_planned() -> None:
    names = {found.name for found in judge(CONFIG, facts(), building=False)}
    assert not {"build-disk", "build-memory", "headers"} & names


@pytest.mark.parametrize(
    ("version", "types", "setting", "chosen"),
    [
        ("535.309.01", (), "auto", "proprietary"),
        ("570.1", (), "auto", "open"),
        ("535.309.01", (BOTH,), "auto", "proprietary"),
        ("570.1", (BOTH,), "auto", "open"),
        ("535.309.01", ({"open"},), "auto", "open"),
        ("570.1", ({"proprietary"},), "auto", "proprietary"),
        ("570.1", ({"proprietary"}, {"open"}), "auto", "open"),
        ("570.1", ({"proprietary"}, {"proprietary"}, {"open"}), "auto", "proprietary"),
        ("535.309.01", (None,), "auto", "proprietary"),
        ("535.309.01", ({"proprietary"},), "open", "open"),
    ],
)
def test_auto_takes_the_type_that_drives_most_gpus(
    version: str, types: tuple[Any, ...], setting: str, chosen: str
) -> None:
    config = settings.load({"KERNEL_MODULE_TYPE": setting})
    support = {str(n): Support(types=frozenset(some) if some else None) for n, some in enumerate(types)}
    assert choose_type(config, version, support) == chosen


def test_the_doctors_page_and_document_have_every_check() -> None:
    made = make(CONFIG, node(privilege=Privilege(("SYS_ADMIN",), False), loading=replace(RULES, lockdown="")))
    text = doctor.describe(made)
    document = json.loads(json.dumps(doctor.collect(made)))
    results = {found["name"]: found["result"] for found in document["checks"]}
    assert results["privilege"] == "refused" and results["signatures"] == "unknown" and results["gpu"] == "ok"
    assert all(name in text for name in results) and "remedy: Run the container with --privileged" in text
