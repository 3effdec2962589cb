"""What the driver says in the kernel log while GPUs are opened belongs to the failure it comes with."""

import pytest

from driverctr.errors import Code, DriverError
from driverctr.paths import Paths
from driverctr.plan import StepName
from driverctr.steps import Outcome
from tests.unit.conftest import make_tree
from tests.unit.fake_life import FakeStep, Life
from tests.unit.fake_life import life as life

OLD = "4,1,9,-;NVRM: Xid (PCI:0000:3b:00): 31, MMU Fault\n"
NEW = "4,2,9,-;NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x26)\n4,3,9,-;eth0: link up\n"


def says(life: Life, paths: Paths, at: StepName, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says something new in the middle of a step."""
    apply = FakeStep.apply

    def applied(step: FakeStep, *words: object) -> Outcome:
        if step.name is at:
            with paths.kernel_log.open("a") as log:
                log.write(NEW)
        return apply(step, *words)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(FakeStep, "apply", applied)


@pytest.mark.parametrize(
    ("at", "fails", "told"),
    [
        (StepName.DAEMONS, StepName.DAEMONS, True),
        (StepName.DAEMONS, StepName.VERIFY, True),
        (StepName.VERIFY, StepName.VERIFY, True),
        (StepName.MODULES, StepName.VERIFY, False),
        (StepName.DAEMONS, StepName.PUBLISH, False),
    ],
)
def test_what_the_driver_says_from_the_first_opening_on_is_attached(
    life: Life, paths: Paths, at: StepName, fails: StepName, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(paths.root, {"dev/kmsg": ""})
    says(life, paths, at, monkeypatch)
    life.steps[fails].failures[""] = DriverError(Code.DAEMON_FAILED, "it did not start", "Do this")
    with pytest.raises(DriverError, match="it did not start") as failed:
        life.start.run()
    assert ("(kernel log: NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x26))" in failed.value.message) is told
    assert "eth0" not in failed.value.message
    assert (failed.value.code, failed.value.remedy) == (Code.DAEMON_FAILED, "Do this")
    assert life.start.way_up.heard is None, "closed"


def test_where_it_says_nothing_new_the_xids_of_before_are_told(life: Life, paths: Paths) -> None:
    make_tree(paths.root, {"dev/kmsg": OLD + "4,2,9,-;NVRM: loading\n"})
    life.steps[StepName.DAEMONS].failures[""] = DriverError(Code.DAEMON_FAILED, "it did not start")
    with pytest.raises(DriverError, match=r"\(kernel log: NVRM: Xid \(PCI:0000:3b:00\): 31, MMU Fault\)"):
        life.start.run()
