"""Many small scenarios on the stand-in driver, one boot a guest script (tests/vm/guest/scenario_<name>.sh)."""

from pathlib import Path

import pytest

from harness import standin

pytestmark = pytest.mark.vm

DOCKER = (
    "store",
    "rollback",
    "warm",
    "ahead",
    "life",
    "crash",
    "input",
    "build",
    "preflight",
    "waiting",
    "holders",
    "words",
    "attempts",
    "doctor",
    "metrics",
)
"""Scripts that run under docker with runc."""

PODMAN = (
    ("waiting", "what goes away|^keep: |in use at the stop"),
    ("crash", "removed by force|NVIDIA's own container|stacked mounts"),
    ("rollback", "whole|SIGKILL"),
    ("input", "/run/nvidia is full"),
    ("preflight", "/run/nvidia is not shared"),
)
"""Scripts with cases about mounts, by title, which also run under podman with crun."""


@pytest.mark.parametrize("name", DOCKER)
def test_scenarios_under_docker(name: str, rootfs: Path) -> None:
    standin.run_scenario(name, standin.scenario_spec(rootfs), "docker").check()


@pytest.mark.parametrize(("name", "cases"), PODMAN)
def test_scenarios_about_mounts_under_podman_with_crun(name: str, cases: str, rootfs: Path) -> None:
    standin.run_scenario(name, standin.scenario_spec(rootfs), "podman-crun", cases).check()
