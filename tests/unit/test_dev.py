"""The one command of a developer, where it cannot go on as it is: what it asks for, and what it hands to sudo."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.conftest import FakeBin

DEV = Path(__file__).parents[2] / "dev"
TOOLS = ("sh", "env", "dirname", "sed", "tr", "grep", "printf")

pytestmark = pytest.mark.allow_process("dev")


def run(fake_bin: FakeBin, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it as a user with nothing but the tools of a bare system on PATH."""
    for tool in TOOLS:
        (fake_bin.folder / tool).symlink_to(str(shutil.which(tool)))
    fake_bin.add("id", "echo 1000")
    given = {"PATH": str(fake_bin.folder), "HOME": "/nowhere", **environment}
    return subprocess.run([DEV, *words], env=given, capture_output=True, text=True, check=False)


def test_sudo_keeps_where_things_lie_and_come_from(fake_bin: FakeBin) -> None:
    fake_bin.add("sudo")
    kept = {
        "XDG_CACHE_HOME": "/cache",
        "PIP_INDEX_URL": "https://packages.example/simple",
        "HTTPS_PROXY": "http://proxy.example",
        "https_proxy": "http://proxy.example",
        "DRIVERCTR_CACHE": "/cache/driverctr",
    }
    ran = run(fake_bin, "image", "rootfs", **kept, LD_PRELOAD="")
    (call,) = [call for call in fake_bin.calls if call.startswith("sudo")]
    _, preserved, *command = call.split()
    assert set(preserved.removeprefix("--preserve-env=").strip(",").split(",")) == set(kept), ran.stderr
    assert command == [os.fspath(DEV), "image", "rootfs"]


def test_without_root_or_sudo_all_that_is_missing_is_named(fake_bin: FakeBin) -> None:
    ran = run(fake_bin, "image")
    assert ran.returncode == 1
    assert "needs root, and there is no sudo; also missing, as root: apt-get install" in ran.stderr
    # What lies in /usr/sbin is looked for there too, and this machine may have it.
    assert {"mmdebstrap", "xz-utils", "git"} <= set(ran.stderr.split())
