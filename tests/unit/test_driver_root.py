"""images/common/driver-root.sh, which lays out the driver in a stage of each image: what it refuses, whom it calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "images/common/driver-root.sh"
MACHINE = os.uname().machine
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

pytestmark = pytest.mark.allow_process("sh")


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script beside what the folder has."""
    shutil.copy2(SCRIPT, folder)
    environment = {"PATH": os.environ["PATH"], "DRIVER_VERSION": "535.309.01", "BASE_URL": "", **variables}
    argv = ["sh", str(folder / SCRIPT.name), "/out"]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_packages_are_the_distributions_own_affair(tmp_path: Path) -> None:
    (tmp_path / "packages-root.sh").write_text('echo "$DRIVER_VERSION into $1"\n')
    done = run(tmp_path, DRIVER_SOURCE="packages", TARGETARCH=ARCHITECTURES.get(MACHINE, ""))
    assert (done.returncode, done.stdout) == (0, "535.309.01 into /out\n"), done.stderr


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"DRIVER_SOURCE": "deb"}, "DRIVER_SOURCE=deb is not known; it is runfile or packages"),
        ({"DRIVER_SOURCE": "runfile", "TARGETARCH": "s390x"}, f"TARGETARCH=s390x, but this stage runs on {MACHINE}"),
        ({"DRIVER_SOURCE": "runfile"}, "two run-files in the build context, a.run and b.run: name one by RUNFILE"),
    ],
)
def test_what_it_cannot_do_is_told(tmp_path: Path, variables: dict[str, str], told: str) -> None:
    for name in ("a.run", "b.run"):
        (tmp_path / name).touch()
    done = run(tmp_path, **variables)
    assert done.returncode == 1
    assert told in done.stderr
