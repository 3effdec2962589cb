"""A driver that is loaded already: recognised by the kernel's word, kept where it is right, told where it is not."""

from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr import markers, planview, status, survey
from driverctr.bringup import BringUp
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.facts.holders import Holder
from driverctr.lifecycle import Start
from driverctr.modules import ModuleSet, Source, Wish, describe, failures, key, loaded, write_manifest
from driverctr.modules.former import Former
from driverctr.modules.loaded import Build, Loaded, Record
from driverctr.modules.ondisk import set_folder
from driverctr.modules.supply import Search, Supply
from driverctr.paths import Paths
from driverctr.pending import Pending, ReloadDue
from driverctr.plan import KEEP_DIGEST, StepName, make
from driverctr.planview import View
from driverctr.steps import Gained
from driverctr.survey import Facts, Observation
from tests.unit.conftest import make_tree
from tests.unit.fake_life import FORWARD, Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import facts
from tests.unit.module_files import module_bytes
from tests.unit.test_module_keys import IMAGE, KERNEL, VERSION

NAMES = ("nvidia", "nvidia-uvm")
WISH = Wish(KERNEL.release, VERSION.text, "open")
CONFIG = settings.load({})
LOADED = Build(ModuleSet(Path("/set"), WISH.kernel_release, "", WISH.driver_version, "open", {}))


def build_id_of(name: str, build: int = 0) -> bytes:
    return bytes([len(name) + build]) * 20


@pytest.fixture
def made(paths: Paths) -> ModuleSet:
    """A set on disk."""
    folder = set_folder(paths.root / "modules", WISH)
    folder.mkdir(parents=True)
    for name in NAMES:
        fields = {"version": VERSION.text, "vermagic": f"{WISH.kernel_release} SMP "}
        parameters = {"NVreg_Shown": "int", "NVreg_Hidden": "int"} if name == "nvidia" else {}
        (folder / f"{name}.ko").write_bytes(module_bytes(fields, build_id_of(name), parameters))
    files = {name: describe(folder / f"{name}.ko") for name in NAMES}
    found = ModuleSet(folder, WISH.kernel_release, "", WISH.driver_version, WISH.module_type, files)
    write_manifest(found)
    return found


def insert(paths: Paths, *names: str, version: str = VERSION.text, build: int = 0) -> None:
    """Modules in the kernel, with parameters that NVIDIA's own file shows."""
    for name in names:
        folder = f"sys/module/{name.replace('-', '_')}"
        make_tree(
            paths.root,
            {
                f"{folder}/{file}": text
                for file, text in (("refcnt", "0"), ("initstate", "live"), ("version", version), ("holders", None))
            },
        )
        note = paths.root / folder / "notes/.note.gnu.build-id"
        note.parent.mkdir()
        data = build_id_of(name, build)
        note.write_bytes(b"\x04\0\0\0" + bytes([len(data)]) + b"\0\0\0\x03\0\0\0GNU\0" + data)
    make_tree(paths.root, {"proc/driver/nvidia/params": "Shown: 0\n", "proc/sys/kernel/random/boot_id": "boot-1"})


def judge(paths: Paths, found: ModuleSet, *, names: tuple[str, ...] = NAMES) -> Loaded:
    return loaded.judge(paths, modules.read_stack(paths) | _others(paths), [Build(found)], names, WISH)


def _others(paths: Paths) -> dict[str, modules.LoadedModule]:
    found = {name: modules.read(paths, name) for name in ("nvidia_uvm",)}
    return {name: module for name, module in found.items() if module}


def ask(paths: Paths, *lines: str) -> None:
    make_tree(paths.root, {"drivers/nvidia.conf": "".join(f"{line}\n" for line in lines)})


def test_a_driver_with_the_build_ids_of_a_set_is_that_set(paths: Paths, made: ModuleSet) -> None:
    insert(paths, *NAMES)
    assert judge(paths, made) == Loaded(Build(made), {"nvidia": (), "nvidia-uvm": ()})


@pytest.mark.parametrize(
    ("version", "build", "told"),
    [("470.1", 0, "nvidia 470.1 is loaded"), (VERSION.text, 1, "none of our builds"), ("", 0, "of no version")],
)
def test_another_driver_is_not_kept(paths: Paths, made: ModuleSet, version: str, build: int, told: str) -> None:
    insert(paths, *NAMES, version=version, build=build)
    with pytest.raises(DriverError, match=told):
        judge(paths, made)


def test_one_module_of_another_build_is_enough(paths: Paths, made: ModuleSet) -> None:
    insert(paths, "nvidia")
    insert(paths, "nvidia-uvm", build=1)
    with pytest.raises(DriverError, match="none of our builds"):
        judge(paths, made)


def test_what_is_missing_is_loaded_beside_if_its_file_is_there(paths: Paths, made: ModuleSet) -> None:
    insert(paths, "nvidia")
    assert judge(paths, made).missing == ("nvidia-uvm",)
    made.modules["nvidia-uvm"].file.unlink()
    with pytest.raises(DriverError, match="nvidia-uvm is not loaded, and the file of that build is gone"):
        judge(paths, made)


def test_parameters_are_judged_by_the_kernel_where_it_shows_them_and_by_the_record_elsewhere(
    paths: Paths, made: ModuleSet
) -> None:
    insert(paths, *NAMES)
    ask(paths, "NVreg_Shown=1", "NVreg_Hidden=1")
    assert judge(paths, made).stale == ("nvidia NVreg_Shown: asked 1, is 0",), "without a record nothing else is known"
    loaded.write(paths, Record(Build(made), {"nvidia": ("NVreg_Shown=0", "NVreg_Gone=7"), "nvidia-uvm": ()}))
    found = judge(paths, made)
    assert set(found.stale) == {
        "nvidia NVreg_Shown: asked 1, is 0",
        "nvidia NVreg_Hidden: asked 1, was loaded with none",
        "nvidia NVreg_Gone: asked no longer, was loaded with 7",
    }
    assert found.parameters["nvidia"] == ("NVreg_Shown=0", "NVreg_Gone=7"), "what it has is what it must keep"


def test_a_record_of_another_boot_or_build_is_not_believed(paths: Paths, made: ModuleSet) -> None:
    insert(paths, *NAMES)
    loaded.write(paths, Record(Build(made), {"nvidia": ("NVreg_Hidden=1",)}))
    assert judge(paths, made).stale
    (paths.proc / "sys/kernel/random/boot_id").write_text("boot-2")
    assert loaded.read(paths) is None and not judge(paths, made).stale


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 9}', '{"schema": 1, "boot": "boot-1"}'])
def test_a_record_that_is_not_ours_is_none(paths: Paths, made: ModuleSet, text: str) -> None:
    insert(paths, *NAMES)
    make_tree(paths.root, {"run/nvidia/driverctr/load.json": text})
    assert loaded.read(paths) is None


def search(paths: Paths) -> Supply:
    config = settings.load({"MODULES_DIR": str(paths.root / "modules")})
    stack = modules.read_stack(paths) | _others(paths)
    return Search(paths, config, IMAGE, WISH, KERNEL, stack, NAMES).look()


def test_without_its_files_the_record_alone_identifies_what_is_loaded(paths: Paths, made: ModuleSet) -> None:
    insert(paths, *NAMES)
    wanted = key.make(WISH, IMAGE, KERNEL)
    loaded.write(paths, Record(Build(made, wanted), {"nvidia": (), "nvidia-uvm": ()}))
    made.folder.rename(paths.root / "elsewhere")
    found = search(paths)
    assert found.kept[Source.LOADED].build.key == wanted and Source.ON_DISK not in found.builds
    loaded.write(paths, Record(Build(made, replace(wanted, source_sha256="other")), {"nvidia": (), "nvidia-uvm": ()}))
    other = search(paths)
    assert Source.LOADED not in other.kept, "the same version of another source is another driver"
    assert other.good is not None and other.kept[Source.LAST_GOOD].build.module_set.modules == made.modules


def test_what_is_loaded_is_no_last_good_of_itself(paths: Paths, made: ModuleSet) -> None:
    insert(paths, *NAMES)
    loaded.write(paths, Record(Build(made), {"nvidia": ("NVreg_Hidden=1",), "nvidia-uvm": ()}))
    ask(paths, "NVreg_Hidden=1")
    assert search(paths).good is None
    ask(paths, "NVreg_Hidden=2")
    good = search(paths).good
    assert good is not None and good.parameters["nvidia"] == ("NVreg_Hidden=1",)


def test_what_served_last_and_is_loaded_but_for_a_module_is_completed(paths: Paths, made: ModuleSet) -> None:
    insert(paths, "nvidia")
    older = replace(key.make(WISH, IMAGE, KERNEL), source_sha256="other")
    folder = made.folder.rename(paths.root / "store")
    files = {name: replace(module, file=folder / f"{name}.ko") for name, module in made.modules.items()}
    stored = replace(made, folder=folder, modules=files)
    loaded.write(paths, Record(Build(stored, older), {"nvidia": (), "nvidia-uvm": ()}))
    assert search(paths).kept[Source.LAST_GOOD].missing == ("nvidia-uvm",)
    files["nvidia-uvm"].file.unlink()
    gone = search(paths)
    assert Source.LAST_GOOD not in gone.kept and gone.good is None
    assert gone.former is not None and "nvidia-uvm is not loaded, and the file" in gone.former.lacks


def test_a_try_that_failed_is_known_until_the_parameters_change_or_the_next_boot(paths: Paths, made: ModuleSet) -> None:
    insert(paths, *NAMES)
    ask(paths, "NVreg_Shown=1")
    tried = failures.attempt(paths, WISH, key.make(WISH, IMAGE, KERNEL), NAMES)
    failures.remember(paths, tried, DriverError(Code.LOAD_FAILED, "modprobe: no"))
    assert search(paths).failed == "modprobe: no"
    ask(paths, "NVreg_Shown=2")
    assert search(paths).failed == ""
    ask(paths, "NVreg_Shown=1")
    (paths.proc / "sys/kernel/random/boot_id").write_text("boot-2")
    assert search(paths).failed == ""


def kept(**changes: object) -> Facts:
    """A node whose driver is loaded and right, unless changed."""
    found = Loaded(LOADED, {"nvidia": ()}, **changes)  # type: ignore[arg-type]  # fields of Loaded
    core = modules.LoadedModule("nvidia", WISH.driver_version, "", "", "live", 2, ())
    return facts(stack={"nvidia": core}, supply=Supply(kept={Source.LOADED: found}))


USER = (Holder(42, "train.py", 0.0, (("nvidia", 2),)),)


def test_a_driver_that_is_right_stays_whoever_uses_it() -> None:
    made = make(CONFIG, replace(kept(), holders=USER))
    steps = {step.name: step for step in made.steps}
    assert not made.blockers and not made.pending
    assert steps[StepName.MODULES].alternative == Source.LOADED
    assert steps[StepName.WITHDRAW].alternative == KEEP_DIGEST
    assert "train.py" in steps[StepName.UNLOAD].what
    assert steps[StepName.UNLOAD].what.startswith("nothing") and steps[StepName.LOAD].what.startswith("nothing")


def test_changed_parameters_wait_for_who_uses_the_driver_or_are_refused_as_set() -> None:
    busy = replace(kept(stale=("nvidia a: asked 1, is 0",)), holders=USER)
    made = make(CONFIG, busy)
    assert not made.blockers and "asked 1, is 0" in made.pending and "train.py" in made.pending
    assert f"Degraded until then: {made.pending}" in planview.describe(View(made))
    strict = make(settings.load({"PARAMETERS_WHEN_BUSY": "refuse"}), busy)
    assert strict.blockers[0].code is Code.IN_USE and not strict.pending
    aside = {other.alternative: other.reason for other in strict.steps[1].set_aside}
    assert "PARAMETERS_WHEN_BUSY=refuse" in aside[Source.LOADED]


def test_changed_parameters_are_applied_at_once_where_nobody_uses_the_driver() -> None:
    idle = kept(stale=("nvidia a: asked 1, is 0",))
    core = replace(idle.stack["nvidia"], refcnt=0)
    step = make(CONFIG, replace(idle, stack={"nvidia": core})).steps[1]
    assert step.alternative == Source.BUILD
    assert "it is loaded anew for nvidia a: asked 1, is 0" in step.set_aside[0].reason


def test_what_failed_in_this_boot_is_not_tried_again_while_the_last_good_is_there() -> None:
    good = Record(LOADED, {"nvidia": ()})
    there = Supply(
        builds={Source.ON_DISK: LOADED},
        kept={Source.LAST_GOOD: Loaded(LOADED)},
        former=Former(good),
        failed="modprobe: no",
    )
    step = make(CONFIG, facts(supply=there)).steps[1]
    assert step.alternative == Source.LAST_GOOD
    assert all("failed earlier in this boot: modprobe: no" in other.reason for other in step.set_aside)
    alone = replace(there, former=None, kept={})
    assert make(CONFIG, facts(supply=alone)).steps[1].alternative == Source.ON_DISK, "nothing is lost by another try"


def test_modules_that_do_not_serve_give_way_to_what_served_last(
    life: Life,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = Record(LOADED, {"nvidia": ("a=1",)})
    looks = [
        facts(supply=replace(facts().supply, former=Former(good), kept={Source.LAST_GOOD: Loaded(LOADED)})),
        facts(),
    ]
    monkeypatch.setattr(survey, "survey", lambda *_: looks.pop(0))
    broken = DriverError(Code.LOAD_FAILED, "modprobe nvidia failed: no")
    life.steps[StepName.LOAD].once = broken
    life.start.way_up.run()
    first = FORWARD[: FORWARD.index("load") + 1]
    undone = [f"undo {name}" for name in ("driver-root", "firmware", "unload", "module-tree", "modules", "withdraw")]
    assert life.told == [*first, *undone, "modules:last-good", *FORWARD[2:]]
    assert life.start.lasting()[0].startswith("rolled back: the build that served last")
    assert "modprobe nvidia failed: no" in life.start.lasting()[0]
    paths, wish = life.start.tools.paths, facts().wish
    assert failures.recall(paths, failures.attempt(paths, wish, None, facts().to_load)) == broken.message


def test_where_nothing_served_before_the_failure_is_the_modules_own(life: Life) -> None:
    life.steps[StepName.VERIFY].once = DriverError(Code.GPU_INIT_FAILED, "no GPU")
    with pytest.raises(DriverError, match="no GPU") as failed:
        life.start.run()
    assert failed.value.code is Code.GPU_INIT_FAILED
    assert not (life.start.tools.paths.own_run / failures.RECORD).exists(), "there is nothing to be kept from it"


def test_a_last_good_that_does_not_serve_either_ends_the_start_with_the_first_cause(
    life: Life,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = Record(LOADED, {})
    there = facts(supply=replace(facts().supply, former=Former(good), kept={Source.LAST_GOOD: Loaded(LOADED)}))
    monkeypatch.setattr(survey, "survey", lambda *_: there)
    life.steps[StepName.LOAD].once = DriverError(Code.LOAD_FAILED, "first")
    life.steps[StepName.VERIFY].failures[""] = DriverError(Code.NOT_READY, "second")
    with pytest.raises(DriverError, match="first"):
        life.start.run()


def test_who_comes_between_look_and_unload_makes_changed_parameters_wait(
    life: Life,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stale = kept(stale=("nvidia a: asked 1, is 0",))
    idle = replace(stale, stack={"nvidia": replace(stale.stack["nvidia"], refcnt=0)})
    looks = [idle, replace(stale, holders=USER)]
    monkeypatch.setattr(survey, "survey", lambda *_: looks.pop(0))
    life.steps[StepName.UNLOAD].once = DriverError(Code.IN_USE, "in use")
    life.start.way_up.run()
    first = ["withdraw", "modules:build", "module-tree", "unload"]
    assert life.told == [*first, "withdraw:keep-digest", "modules:loaded", *FORWARD[2:]]


def test_what_is_pending_is_told_with_ready(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(kept(stale=("nvidia a: asked 1, is 0",)), holders=USER)
    monkeypatch.setattr(survey, "survey", lambda *_: found)
    life.start.way_up.gained = Gained(kept=found.supply.kept[Source.LOADED])
    life.start.bring_up()
    assert life.start.told.phase is status.Phase.READY
    assert "asked 1, is 0" in life.start.told.degraded[0] and "train.py" in life.start.told.degraded[0]


def test_looks_that_never_agree_end(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = kept(stale=("nvidia a: asked 1, is 0",))
    idle = replace(stale, stack={"nvidia": replace(stale.stack["nvidia"], refcnt=0)})
    monkeypatch.setattr(survey, "survey", lambda *_: idle)
    life.steps[StepName.UNLOAD].failures[""] = DriverError(Code.IN_USE, "in use")
    with pytest.raises(DriverError, match="in use"):
        life.start.way_up.run()


def test_a_failed_start_leaves_a_driver_that_was_there_before(
    life: Life,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life.start.way_up.gained = Gained(kept=Loaded(LOADED))
    life.start.done.extend((life.steps[name], {"by": name.value}) for name in (StepName.FIRMWARE, StepName.LOAD))
    life.start.take_down()
    assert life.told == [], "neither modules nor what they need is taken away"
    assert "kept, since it was loaded before this start" in life.log


def test_the_pending_reload_is_due_once_nobody_uses_the_driver(
    life: Life,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(tools: object) -> None:
        error = DriverError(Code.IN_USE, "the driver is in use: pid 7")
        error.in_use = ({"module": "nvidia", "pids": [7]},)
        raise error

    pending = Pending(life.start.tools, ("nvidia a: asked 1, is 0",))
    monkeypatch.setattr("driverctr.pending.check_free", busy)
    why, used = pending.look()
    assert why == "pending reload: nvidia a: asked 1, is 0; the driver is in use: pid 7"
    assert used == ({"module": "nvidia", "pids": [7]},)
    monkeypatch.setattr("driverctr.pending.check_free", lambda tools: None)
    with pytest.raises(ReloadDue):
        pending.look()


def test_the_digest_stays_while_the_driver_stays(life: Life, paths: Paths) -> None:
    from driverctr.plan import PlannedStep
    from driverctr.steps.markers import Withdraw

    markers.write_digest(paths.run, "12")
    for way, there in ((KEEP_DIGEST, True), ("", False)):
        Withdraw().apply(life.start.tools, PlannedStep(StepName.WITHDRAW, "", way), facts(), Gained())
        assert (paths.run / markers.DIGEST).exists() is there


def test_an_observation_keeps_its_reason(life: Life) -> None:
    way_up: BringUp = life.start.way_up
    way_up.learned = (Observation("modules", Source.BUILD, DriverError(Code.BUILD_FAILED, "nv.c:1")),)
    assert way_up.look().refusals("modules")[-1].error.message == "nv.c:1"
    assert isinstance(life.start, Start)
