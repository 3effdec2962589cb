"""What needs a program of the system to judge the files in deploy/; tests/unit/test_deploy.py has the rest."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.image

UNIT = Path(__file__).parents[2] / "deploy/systemd/nvidia-driver.service"


def verify(unit: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """On a host with docker where its package has it; the machine of a test may have it elsewhere, or another unit."""
    text = UNIT.read_text().replace("/usr/bin/docker", "/bin/true").replace("docker.service", "basic.target")
    (tmp_path / UNIT.name).write_text(text)
    done = verify(tmp_path / UNIT.name)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_not_take_a_wrong_one(tmp_path: Path) -> None:
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace("Restart=on-failure", "Restart=on-filure"))
    assert "on-filure" in verify(tmp_path / UNIT.name).stderr
