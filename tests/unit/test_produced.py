"""What counts as an error that the program produces: made by it, and not a test's own told again."""

import pytest

from driverctr.errors import Code, DriverError, of_bug
from driverctr.facts import kernellog
from driverctr.facts.kernellog import Mark
from driverctr.hashing import Hashes
from driverctr.kmod import Kmod
from driverctr.moduletree import assemble
from driverctr.paths import Paths
from tests.unit.produced import Produced


@pytest.fixture
def produced(monkeypatch: pytest.MonkeyPatch) -> Produced:
    monkeypatch.setattr(DriverError, "__init__", DriverError.__init__)
    return Produced()


def test_an_error_that_the_program_makes_counts_and_a_tests_own_does_not(produced: Produced) -> None:
    DriverError(Code.GPU_LOST, "the test's")
    of_bug(ZeroDivisionError())
    assert produced.codes == {Code.BUG}


def test_a_tests_own_that_the_program_tells_again_does_not_count(
    produced: Produced, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DriverError(Code.GPU_LOST, "the test's")

    monkeypatch.setattr(Kmod, "index", fail)
    with pytest.raises(DriverError):
        assemble(paths, "6.1", {}, None, Kmod(), Hashes())
    with Mark(paths) as mark:
        assert kernellog.explain(paths, mark, DriverError(Code.GPU_LOST, "the test's")).code is Code.GPU_LOST
    assert produced.codes == set()
