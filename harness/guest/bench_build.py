"""CPU seconds of `nvidia-driver build` and of a plain make of the same tree, interleaved; in a container of the image.

Arguments: kernel release, driver version, rounds. The kernel's headers are mounted under their own names.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

RELEASE, VERSION, ROUNDS = sys.argv[1], sys.argv[2], int(sys.argv[3])
MODULES = "nvidia nvidia-uvm nvidia-modeset nvidia-peermem"
JOBS = str(os.cpu_count() or 1)


def cpu_seconds(argv: list[str], folder: Path) -> float:
    """User and system time of a run and all it waited for."""
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        said = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.execvp(argv[0], argv)
    _, status, used = os.wait4(pid, 0)
    assert status == 0, (argv, status, (folder / "log").read_text()[-2000:])
    return used.ru_utime + used.ru_stime


def ours(folder: Path) -> float:
    """As a user builds ahead."""
    words = ["--kernel", RELEASE, "--max-threads", JOBS, "--output", str(folder / "out")]
    return cpu_seconds(["nvidia-driver", "build", *words], folder)


def bare(folder: Path) -> float:
    """The copy is part of it: the image's own source stays as it is in both."""
    tree = folder / "source"
    copied = cpu_seconds(["cp", "-a", f"/usr/src/nvidia-{VERSION}/kernel", str(tree)], folder)
    words = [f"-j{JOBS}", f"KERNEL_UNAME={RELEASE}", "IGNORE_CC_MISMATCH=1", f"NV_KERNEL_MODULES={MODULES}"]
    return copied + cpu_seconds(["make", "-C", str(tree), *words, "modules"], folder)


times: dict[str, list[float]] = {"ours": [], "bare": []}
for _ in range(ROUNDS):
    for name, build in (("ours", ours), ("bare", bare)):
        folder = Path(tempfile.mkdtemp())
        times[name].append(build(folder))
        shutil.rmtree(folder)
print(json.dumps({name: sum(seconds) / ROUNDS for name, seconds in times.items()}))
