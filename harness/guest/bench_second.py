"""Compiler processes of each of two who want the modules of one key at once; in a container of the image.

Arguments: kernel release, compiler. The kernel's headers are mounted under their own names.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RELEASE, COMPILER = sys.argv[1], sys.argv[2]
folder = Path(tempfile.mkdtemp())


def begin(name: str) -> "subprocess.Popen[bytes]":
    """As the host's hook or a user has modules built ahead; the compiler writes down each of its runs."""
    tools = folder / name
    tools.mkdir()
    (tools / COMPILER).write_text(f'#!/bin/sh\necho "$@" >>{tools}/runs\nexec /usr/bin/{COMPILER} "$@"\n')
    (tools / COMPILER).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "STORE_DIR": str(folder / "store"),
        "MAX_THREADS": str(os.cpu_count() or 1),
    }
    return subprocess.Popen(
        ["nvidia-driver", "update", "--kernel", RELEASE],
        env=environment,
        stdout=(tools / "said").open("wb"),
        stderr=(tools / "log").open("wb"),
    )


def runs(name: str) -> int:
    """How often the compiler of one of them ran."""
    file = folder / name / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


first = begin("first")
while not runs("first") and first.poll() is None:
    time.sleep(0.1)
second = begin("second")
for name, process in (("first", first), ("second", second)):
    assert process.wait() == 0, (folder / name / "log").read_text()
assert (folder / "first/said").read_text() == (folder / "second/said").read_text()
print(json.dumps({name: runs(name) for name in ("first", "second")}))
