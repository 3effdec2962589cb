"""A node that boots again: the store on its disk is all that a start needs, with no headers, compiler or network."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness import standin

pytestmark = pytest.mark.vm


def test_the_boot_after_a_power_cut_finds_its_modules_in_the_store(rootfs: Path, tmp_path: Path) -> None:
    first = replace(standin.scenario_spec(rootfs), kept={"/var/lib/driverctr": tmp_path / "disk"})
    standin.run_scenario("reboot", first, cases="first boot").check()
    standin.run_scenario("reboot", replace(first, headers=False), cases="second boot").check()
