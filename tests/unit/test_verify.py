"""The check that ready depends on: the kernel's word against what was placed, and whether the GPUs answer."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from driverctr import config as settings
from driverctr import firmware, markers, pidlock, smi, status, truth, verify
from driverctr.daemons import Running
from driverctr.depth import Depth
from driverctr.errors import Code, DriverError
from driverctr.facts import gpus
from driverctr.facts.supported import Support
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.settings import GpuNeed
from driverctr.status import Phase, Status
from driverctr.steps.verify import to_serve
from driverctr.verify import Expected, Part
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.good_node import facts
from tests.unit.test_processes import DAEMON
from tests.unit.test_use import loaded

ONE, TWO = "0000:3b:00.0", "0000:5e:00.0"


def expected(**changes: object) -> Expected:
    plain = Expected("535.1", {"nvidia": "c0ffee11", "nvidia-uvm": "c0ffee11"}, {"nvidia": ("NVreg_A=1",)})
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test's shorthand


def gpu(paths: Paths, address: str, driver: str = "nvidia") -> None:
    """A GPU on the bus, bound to a driver or to none."""
    base = f"sys/bus/pci/devices/{address}"
    make_tree(paths.root, {f"{base}/vendor": "0x10de\n", f"{base}/class": "0x030200\n", f"{base}/device": "0x20b0\n"})
    bind(paths, address, driver)


def bind(paths: Paths, address: str, driver: str) -> None:
    link = paths.pci_devices / address / "driver"
    link.unlink(missing_ok=True)
    if driver:
        link.symlink_to(f"../../../bus/pci/drivers/{driver}")


@pytest.fixture
def node(paths: Paths) -> Paths:
    """Both modules are loaded, and one GPU is bound to them."""
    loaded(paths, "nvidia", 1, "nvidia_uvm")
    loaded(paths, "nvidia_uvm", 0)
    make_tree(paths.root, {"dev": None, "proc/driver/nvidia/params": "A: 1\n"})
    gpu(paths, ONE)
    return paths


@pytest.mark.parametrize(
    ("files", "said", "code", "gone"),
    [
        ({"sys/module/nvidia/initstate": "coming"}, "nvidia is coming", Code.NOT_READY, False),
        (
            {"sys/module/nvidia_uvm/version": "470.9"},
            "nvidia-uvm is version 470.9, not 535.1",
            Code.OTHER_VERSION,
            False,
        ),
        ({"sys/module/nvidia/notes/.note.gnu.build-id": ""}, "nvidia is another build", Code.NOT_READY, False),
        ({"proc/devices": "Character devices:\n195 nvidia\n"}, "/dev/nvidiactl is missing", Code.NOT_READY, True),
    ],
)
def test_the_check_names_what_differs(node: Paths, files: dict[str, str], said: str, code: Code, gone: bool) -> None:
    verify.refuse(verify.look(node, expected()))
    make_tree(node.root, files)
    found = verify.look(node, expected())
    assert [(finding.code, finding.gone, finding.serves) for finding in found] == [(code, gone, False)]
    with pytest.raises(DriverError, match=f"as wanted: {said}") as failed:
        verify.refuse(found)
    assert failed.value.code is code


def test_a_parameter_that_differs_is_degraded_and_ready_all_the_same(node: Paths) -> None:
    make_tree(node.root, {"proc/driver/nvidia/params": "A: 0\n"})
    found = verify.look(node, expected())
    assert [(f.part, f.serves, f.text) for f in found] == [(Part.PARAMETER, True, "nvidia NVreg_A: asked 1, is 0")]
    verify.refuse(found)


def test_the_check_names_everything_at_once_and_looks_no_deeper_than_asked(paths: Paths) -> None:
    make_tree(paths.root, {"proc/devices": "Character devices:\n195 nvidia\n", "dev": None})
    wish = expected(running=(Running(DAEMON, 2**22 + 1, 1),))
    assert [finding.text for finding in verify.look(paths, wish, Depth.MODULES)] == [
        "nvidia is not loaded",
        "nvidia-uvm is not loaded",
    ]
    assert [finding.subject for finding in verify.check_devices(paths, wish)] == ["nvidiactl", "nvidia-fake"]


@pytest.mark.parametrize(
    ("least", "first", "second", "serves", "said"),
    [
        (None, "nvidia", "nvidia", True, []),
        (None, "nvidia", "absent", False, [f"GPU {TWO} has vanished from the bus"]),
        (1, "nvidia", "absent", True, [f"GPU {TWO} has vanished from the bus"]),
        (2, "nvidia", "absent", False, [f"GPU {TWO} has vanished from the bus"]),
        (None, "nvidia", "vfio-pci", True, [f"GPU {TWO} was given to vfio-pci"]),
        (None, "nvidia", "", False, [f"GPU {TWO} is bound to no driver"]),
        (None, "nouveau", "vfio-pci", False, [f"GPU {TWO} was given to vfio-pci", f"GPU {ONE} is bound to nouveau"]),
    ],
)
def test_a_gpu_that_served_is_missed_unless_given_away_or_enough_are_left(
    node: Paths, least: int | None, first: str, second: str, serves: bool, said: list[str]
) -> None:
    bind(node, ONE, first)
    if second != "absent":
        gpu(node, TWO, second)
    found = verify.check_gpus(node, expected(gpus=(ONE, TWO), least_gpus=least), gpus.read(node))
    assert [finding.text for finding in found] == said
    assert all(finding.serves is serves and not finding.gone for finding in found)


def test_a_gpu_is_not_called_lost_when_it_is_the_module_that_went(paths: Paths) -> None:
    gpu(paths, ONE, "")
    assert verify.check_gpus(paths, expected(gpus=(ONE,)), gpus.read(paths)) == []


@pytest.mark.parametrize(("now", "gone"), [("", True), ("/somebody/elses", False)])
def test_a_firmware_path_that_changed_is_degraded_and_a_blank_one_is_set_again(
    node: Paths, now: str, gone: bool
) -> None:
    parameter = "sys/module/firmware_class/parameters/path"
    make_tree(node.root, {parameter: "/ours\n"})
    assert verify.look(node, expected(firmware_path="/ours")) == []
    (node.root / parameter).write_text(now)
    found = verify.look(node, expected(firmware_path="/ours"))
    assert [(finding.part, finding.serves, finding.gone) for finding in found] == [(Part.FIRMWARE, True, gone)]
    if gone:
        firmware.restore_path(node, "/ours")
        assert verify.look(node, expected(firmware_path="/ours")) == []
    with pytest.raises(DriverError):
        firmware.restore_path(Paths(node.root / "none"), "/ours")


def test_what_is_expected_survives_the_status_document(paths: Paths) -> None:
    wish = expected(gpus=(ONE,), least_gpus=1, root=True)
    status.publish(paths, Status(Phase.READY, 0, 1, expected=wish.as_dict()))
    document = status.read(paths)
    assert document is not None
    again = verify.recall(document["expected"])
    assert replace(again, parameters=wish.parameters) == wish
    assert {name: tuple(words) for name, words in again.parameters.items()} == wish.parameters


@pytest.fixture
def ready(node: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A start that says it is ready, with both markers, whose process lives."""
    status.publish(node, Status(Phase.READY, 0, 1, expected=expected(gpus=(ONE,)).as_dict()))
    markers.write_ready(node.run, gds=False, gdrcopy=False, rdma=False)
    monkeypatch.setattr(pidlock, "is_held", lambda *_: True)
    return node


def is_ready(paths: Paths) -> bool:
    document = status.read(paths)
    return document is not None and truth.is_ready(paths, document, truth.look(paths, document))


def test_ready_is_the_kernels_truth_whatever_the_markers_say(ready: Paths) -> None:
    assert is_ready(ready)
    (ready.run / markers.CONTAINER).unlink()
    assert is_ready(ready), "the operator's preStop took the marker, not the driver"
    markers.write_ready(ready.run, gds=False, gdrcopy=False, rdma=False)
    make_tree(ready.root, {"sys/module/nvidia_uvm/version": "470.9"})
    assert not is_ready(ready), "marker and core module are there, and it is not true"
    assert [one.code for one in truth.look(ready, status.read(ready))] == [Code.OTHER_VERSION]


@pytest.mark.parametrize("what", ["dead", "starting", "never checked"])
def test_ready_needs_a_start_that_lives_and_became_ready(
    ready: Paths, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = expected(gpus=(ONE,)).as_dict()
    if what == "dead":
        monkeypatch.setattr(pidlock, "is_held", lambda *_: False)
    elif what == "starting":
        status.publish(ready, Status(Phase.STARTING, 0, 1, expected=wish))
    else:
        status.publish(ready, Status(Phase.READY, 0, 1))
    assert not is_ready(ready)


@pytest.mark.parametrize("wish", [{"surprise": 1}, {}])
def test_a_document_of_another_release_is_no_reason_to_fail(paths: Paths, wish: dict[str, int]) -> None:
    assert truth.look(paths, {"expected": wish}) == truth.look(paths, {}) == truth.look(paths, None) == []


def test_what_cannot_be_looked_at_is_not_called_ready(ready: Paths) -> None:
    document = status.read(ready)
    assert document is not None and truth.is_ready(ready, document, [])
    document["expected"]["surprise"] = 1
    assert not truth.is_ready(ready, document, truth.look(ready, document))


def test_the_lock_is_seen_without_taking_it(paths: Paths, tmp_path: Path) -> None:
    assert not pidlock.is_held(paths.pid_file)
    with pidlock.held(paths.pid_file):
        assert pidlock.is_held(paths.pid_file)
    paths.pid_file.touch()
    assert not pidlock.is_held(paths.pid_file)


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("echo 'No devices were found'; exit 6", Code.GPU_INIT_FAILED, "no GPU could be initialised"),
        ("echo 'Driver/library version mismatch'; exit 18", Code.OTHER_VERSION, "different versions"),
        ("exit 12", Code.NOT_READY, "exit status 12"),
        ("exec /bin/sleep 30", Code.COMMAND_FAILED, "did not end within 1 s"),
    ],
)
def test_what_nvidia_smi_means(
    paths: Paths, runner: Runner, fake_bin: FakeBin, script: str, code: Code, said: str
) -> None:
    fake_bin.add("nvidia-smi", script)
    with pytest.raises(DriverError, match=said) as failed:
        smi.check(runner, 1, GpuNeed(), ())
    assert failed.value.code is code


def answers(fake_bin: FakeBin, *addresses: str) -> None:
    """An nvidia-smi that exits 0 and lists these."""
    rows = "\n".join(f"{index}, {address}" for index, address in enumerate(addresses))
    fake_bin.add("nvidia-smi", f'case "$1" in --query*) /bin/cat <<"END"\n{rows}\nEND\nesac')


@pytest.mark.parametrize(
    ("wish", "listed", "silent", "refused"),
    [
        ("all", ["00000000:3B:00.0", "00000000:5E:00.0"], (), False),
        ("all", ["00000000:3B:00.0"], (), True),
        ("any", ["00000000:3B:00.0"], (TWO,), False),
        ("any", [], (), True),
        ("1", ["00000000:5E:00.0"], (ONE,), False),
        ("2", ["00000000:5E:00.0"], (), True),
        ("3", ["00000000:3B:00.0", "00000000:5E:00.0"], (), True),
        ("all", ["00000000:5E:00.0", "00000000:AF:00.0"], (), True),
        ("1", ["00000000:AF:00.0"], (), True),
    ],
)
def test_as_many_gpus_must_answer_as_the_setting_says(
    paths: Paths,
    runner: Runner,
    fake_bin: FakeBin,
    wish: str,
    listed: list[str],
    silent: tuple[str, ...],
    refused: bool,
) -> None:
    answers(fake_bin, *listed)
    need = settings.load({"VERIFY_GPUS": wish}).verify_gpus
    if not refused:
        assert smi.check(runner, 5, need, (ONE, TWO)) == silent
        return
    ours = [address for address in listed if "AF" not in address]
    with pytest.raises(DriverError, match=f"lists {len(ours)} of 2 GPUs") as failed:
        smi.check(runner, 5, need, (ONE, TWO))
    assert failed.value.code is Code.GPU_INIT_FAILED
    assert (TWO in failed.value.message) is ("5E" not in "".join(ours) and len(ours) < 2)


@pytest.mark.parametrize("value", ["0", "none", "-1", "4097", "99999999", "²", "1.5"])
def test_a_number_of_gpus_that_makes_no_sense_is_refused(value: str) -> None:
    with pytest.raises(DriverError, match=r"VERIFY_GPUS=.* is not all, any, or a whole number from 1 to 4096"):
        settings.load({"VERIFY_GPUS": value})


STATE = {
    "pci.bus_id": "00000000:3B:00.0",
    "mig.mode.current": "Enabled",
    "compute_mode": "Exclusive_Process",
    "power.limit": "250.00",
    "power.default_limit": "400.00",
    "clocks.applications.graphics": "[N/A]",
    "accounting.mode": "Disabled",
}


TELL = """import json, sys
state = json.loads(sys.argv[1])
if sys.argv[2].startswith("--query-gpu=index"):
    print("0, " + state["pci.bus_id"])
elif sys.argv[2].startswith("--query-gpu="):
    print(", ".join(state.get(name, "[N/A]") for name in sys.argv[2].partition("=")[2].split(",")))
else:
    print("GPU 0: NVIDIA A100 (UUID: x)", "  MIG 3g.20gb Device 0: (y)", "  MIG 3g.20gb Device 1: (z)", sep="\\n")
"""


def tells_state(fake_bin: FakeBin, state: dict[str, str]) -> None:
    fake_bin.add("nvidia-smi", f"/usr/bin/python3 -c '{TELL}' '{json.dumps(state)}' \"$1\"")


def test_state_that_a_reload_loses_is_told_where_it_differs_from_the_defaults(
    runner: Runner, fake_bin: FakeBin
) -> None:
    tells_state(fake_bin, STATE)
    assert smi.read_state(runner) == (
        f"GPU {ONE}: 2 MIG devices, MIG mode Enabled, compute mode Exclusive_Process, "
        "power limit 250.00 W (default 400.00 W)",
    )
    usual = {**STATE, "mig.mode.current": "Disabled", "compute_mode": "Default", "power.limit": "400.00"}
    tells_state(fake_bin, usual)
    assert smi.read_state(runner) == ()


@pytest.mark.parametrize("script", ["exit 18", "exec /bin/sleep 30", "echo 'Field x is not valid'; exit 2"])
def test_state_that_nvidia_smi_cannot_tell_is_no_failure(runner: Runner, fake_bin: FakeBin, script: str) -> None:
    fake_bin.add("nvidia-smi", script)
    assert smi.read_state(runner, 0.5) == ()
    assert "the GPUs' state is not known" in runner.log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_all_questions_about_the_state_share_one_limit(runner: Runner, fake_bin: FakeBin) -> None:
    fake_bin.add("nvidia-smi", f"/bin/sleep 0.6; /usr/bin/python3 -c '{TELL}' '{json.dumps(STATE)}' \"$1\"")
    assert smi.read_state(runner, 1.0) == ()
    assert "the GPUs' state is not known" in runner.log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_only_gpus_that_are_ours_and_can_be_driven_must_answer(
    paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, driver in ((ONE, "nvidia"), (TWO, ""), ("0000:af:00.0", "vfio-pci"), ("0000:d8:00.0", "")):
        gpu(paths, address, driver)
    support = {ONE: Support(), TWO: Support(legacy="470"), "0000:d8:00.0": Support(types=frozenset(("proprietary",)))}
    known = facts(node=replace(facts().node, support=support))
    tools = SimpleNamespace(paths=paths)
    assert to_serve(tools, known, known.wish.module_type) == [ONE, "0000:d8:00.0"]  # type: ignore[arg-type]  # paths is all it takes
