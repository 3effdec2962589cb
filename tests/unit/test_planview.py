"""`driverctr plan`: what is true, what will be done and for how long, what was set aside, what blocks."""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import driverctr
from driverctr import config as settings
from driverctr import estimate, history, planview, survey
from driverctr.errors import Code, DriverError
from driverctr.estimate import Estimate
from driverctr.facts.holders import Holder
from driverctr.facts.modules import LoadedModule
from driverctr.history import Outcome, Start
from driverctr.kmod import Kmod
from driverctr.modules import Source
from driverctr.modules.former import Former
from driverctr.modules.loaded import Build, Loaded, Record
from driverctr.modules.supply import Supply
from driverctr.paths import Paths
from driverctr.plan import Plan, StepName, make
from driverctr.planview import View
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.steps import Tools
from driverctr.survey import Observation
from driverctr.syslog import Syslog
from tests.unit.good_node import A100, ON_DISK, facts

CONFIG = settings.load({})
PAGE = Path(driverctr.__file__).parents[2] / "docs/plan.md"
USER = Holder(42, "train.py", 0.0, (("nvidia", 2),))
CORE = LoadedModule("nvidia", "470.1", "", "", "live", 2, ())
KEPT = Supply(kept={Source.LOADED: Loaded(Build(ON_DISK))})


def start(seconds: float, source: str = "on-disk", **steps: float) -> Start:
    took = {"modules": seconds - 5, "load": 4.0, "module-tree": 1.0, **steps}
    return Start(1.0, seconds, Outcome.READY, modules_from=source, steps=took)


def planned(**changes: object) -> Plan:
    return make(CONFIG, facts(**changes))


def test_a_plan_is_estimated_by_starts_with_modules_from_the_same_place() -> None:
    seen = estimate.estimate(planned(), (start(10), start(300, "build"), start(12), start(14)))
    assert (seen.modules_from, seen.starts, seen.seconds) == ("on-disk", 3, 12)
    assert seen.steps == {"modules": 7, "module-tree": 1, "load": 4}, "in the order of the plan"


def test_without_such_a_start_the_steps_are_told_but_not_how_long_the_modules_take() -> None:
    seen = estimate.estimate(planned(), (start(300, "build"), start(1, "loaded", load=0.5)))
    assert seen == Estimate("on-disk", 0, None, {"module-tree": 1, "load": 4}) and seen.rest == 5
    kept = estimate.estimate(planned(supply=KEPT), (start(300, "build"),))
    assert kept == Estimate("loaded"), "what is loaded is not loaded again"


def test_failed_starts_and_those_of_many_attempts_tell_nothing() -> None:
    failed = replace(start(10), outcome=Outcome.FAILED)
    assert estimate.estimate(planned(), (failed, replace(start(10), attempts=2))) == Estimate("on-disk")


def test_a_plan_that_is_blocked_takes_no_time() -> None:
    assert estimate.estimate(planned(stack={"nvidia": CORE}, holders=(USER,)), (start(10),)) == Estimate()


def test_the_page_says_what_is_true_what_is_wanted_and_what_will_be_done() -> None:
    known = facts(observations=(Observation("modules", "store", DriverError(Code.NO_MODULES, "the store is empty")),))
    text = planview.describe(planview.look(make(CONFIG, known), known, (start(10), start(300, "build"), start(12))))
    assert (
        text
        == """\
What is true
  host          Debian GNU/Linux 12 (bookworm)
  kernel        6.1.0-56-amd64
  GPU           0001:01:00.0 (10de:20b0) NVIDIA A100-SXM4-40GB, bound to no driver
  loaded        no module of the driver
  users         nobody uses the driver
  daemons       none of ours runs
  driver root   not mounted

What is wanted
  driver 535.309.01 (proprietary modules) for kernel 6.1.0-56-amd64

What will be done, in order: about 10 s, by the median of 2 starts here that took the modules on disk
   1. withdraw            ?  remove the ready markers and the operator's digest
   2. modules         5.0 s  take the modules on disk (/opt/driverctr/modules/6.1.0-56-amd64)
                             if that fails: build them
                             set aside: loaded, since no driver of ours is loaded
                             set aside: store, since the store is empty
                             set aside: remote, since REMOTE_URL is not set
                             set aside: last-good, since nothing else served before, or it is gone
   3. module-tree     1.0 s  put the modules, and the host's that they need, where modprobe finds them
   4. unload              ?  nothing: no module of the driver is loaded
   5. firmware            ?  place GSP firmware 535.309.01 where the kernel looks for it
   6. driver-root         ?  export our root, with the driver's programs and libraries, at /run/nvidia/driver
   7. load            4.0 s  load nvidia, nvidia-uvm, nvidia-modeset
   8. device-nodes        ?  make /dev/nvidia* with the kernel's numbers
   9. daemons             ?  start nvidia-persistenced and watch it, or adopt the one that runs
  10. verify              ?  check that the kernel has what is wanted, and that nvidia-smi lists each GPU
  11. publish             ?  publish the ready markers, which others wait for
"""
    )


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ((start(36),), "in order: about 36 s, by the one start here that took the modules on disk\n"),
        ((start(300),) * 3, "in order: about 5 min, by the median of 3 starts"),
        (
            (start(9, "store"),),
            ": no start here took the modules on disk before; the rest takes about 5.0 s\n",
        ),
        ((), "(how long it takes is not known: no start of this kind is on record here)\n"),
    ],
)
def test_how_long_it_takes_is_told_as_far_as_it_is_known(starts: tuple[Start, ...], said: str) -> None:
    assert said in planview.describe(planview.look(planned(), facts(), starts))


def test_a_plan_without_times_has_no_column_for_them() -> None:
    assert "\n   1. withdraw      remove the ready markers" in planview.describe(View(planned()))


def test_what_blocks_is_told_with_what_to_do_and_nothing_is_said_to_be_done() -> None:
    known = facts(stack={"nvidia": CORE}, holders=(USER,))
    text = planview.describe(planview.look(make(CONFIG, known), known, (start(10),)))
    said = "the driver is in use: nvidia has refcnt 2: pid 42 (train.py)"
    assert "  users         the driver is in use, see the end\n" in text and text.count(said) == 1
    assert text.endswith(f"\nBlocked (in-use): {said}\n  Free the GPU: kill 42\n")
    assert "What would be done, if nothing blocked it (see the end)\n" in text and "What will" not in text


def test_who_uses_a_driver_that_stays_is_told_once() -> None:
    known = facts(stack={"nvidia": CORE}, holders=(USER,), supply=KEPT)
    text = planview.describe(planview.look(make(CONFIG, known), known))
    assert "  users         the driver is in use: nvidia has refcnt 2: pid 42 (train.py)\n" in text
    assert "nothing: what is loaded stays, whoever uses it\n" in text and text.count("train.py") == 1


def test_the_way_back_is_told_where_something_gives_way() -> None:
    record = Record(Build(ON_DISK), {})
    for former, said in (
        (Former(record), "535.309.01 with build-id unknown, which served last, is loaded again"),
        (Former(lacks="its files are gone"), "there is no way back: its files are gone"),
    ):
        known = facts(supply=Supply(builds={Source.ON_DISK: Build(ON_DISK)}, former=former))
        assert f"If that does not serve: {said}\n" in planview.describe(planview.look(make(CONFIG, known), known))
    kept = facts(supply=replace(KEPT, former=Former(record)))
    assert planview.look(make(CONFIG, kept), kept).way_back == ""


def test_a_gpu_of_another_driver_and_what_runs_is_told() -> None:
    found = planview.describe_found(
        facts(gpus=(replace(A100, driver="vfio-pci"), replace(A100, reserved="x")), stack={"nvidia": CORE})
    )
    assert found["GPU"].count("NVIDIA A100-SXM4-40GB, ") == 2 and "bound to vfio-pci; " in found["GPU"]
    assert found["GPU"].endswith("reserved for x") and found["loaded"] == "nvidia 470.1"
    assert planview.describe_found(facts(gpus=()))["GPU"] == "none on the PCI bus"


def test_on_a_terminal_lines_are_wrapped_below_their_column() -> None:
    lines = planview.describe(planview.look(planned(), facts(), (start(10),)), 72).splitlines()
    assert max(map(len, lines)) <= 72
    (at,) = (number for number, line in enumerate(lines) if "last-good, since" in line)
    assert lines[at + 1].startswith(" " * 31) and "gone" in lines[at + 1]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.03, "< 0.1 s"), (4.25, "4.2 s"), (35.4, "35 s"), (119, "119 s"), (150, "2 min")]
)
def test_seconds_are_told_as_a_person_would(seconds: float, said: str) -> None:
    assert planview.describe_seconds(seconds) == said


@pytest.mark.parametrize("as_json", [False, True])
def test_the_verb_reads_the_history_beside_the_store(
    paths: Paths,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    as_json: bool,
) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: facts())
    monkeypatch.setattr(history, "folder", lambda *_: tmp_path)
    history.record(tmp_path, start(10))
    signals = Signals()
    budget = Budget(signals, CONFIG.stop_timeout)
    tools = Tools(paths, CONFIG, runner, Kmod(), signals, Syslog(Path("/nowhere"), paths.own_run), budget)
    assert planview.show(tools, argparse.Namespace(json=as_json)) == 0
    said = capsys.readouterr().out
    if as_json:
        assert json.loads(said)["estimate"]["seconds"] == 10
    else:
        assert "about 10 s, by the one start" in said


def test_each_field_for_programs_is_explained() -> None:
    known = facts(stack={"nvidia": CORE}, holders=(USER,))
    told = json.loads(json.dumps(planview.look(make(CONFIG, known), known, (start(10),)).as_dict()))
    rows = set(re.findall(r"^\| `([A-Za-z_.\[\] ]+)`", PAGE.read_text(), re.MULTILINE))
    fields = set(told) | {f"found.{name}" for name in told["found"]} | {f"estimate.{name}" for name in told["estimate"]}
    for name in ("steps", "checks", "blockers"):
        fields |= {f"{name}[].{field}" for row in told[name] for field in row}
    aside = (other for step in told["steps"] for other in step["set_aside"])
    assert rows == fields | {f"steps[].set_aside[].{field}" for other in aside for field in other}
    assert {step["name"] for step in told["steps"]} <= set(StepName)
