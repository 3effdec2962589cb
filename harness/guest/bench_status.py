"""CPU seconds of calls on a node that serves and of a bare interpreter, interleaved; in a container of the image.

Usage: bench_status.py [LIB] CALL...: where driverctr lies, and words of calls. The node is a tree (serving_node), once
with nothing but our own daemon on its GPUs, once with a job. What is told is the median of many runs.
"""

import json
import os
import statistics
import sys
import tempfile
from importlib import import_module
from pathlib import Path

IN_IMAGE = "/opt/driverctr/lib"
LIB, CALLS = (sys.argv[1], sys.argv[2:]) if sys.argv[1].startswith("/") else (IN_IMAGE, sys.argv[1:])
sys.path.insert(0, LIB)

ROUNDS = 41
PYTHON = "/usr/bin/python3"
BARE = [PYTHON, "-I", "-c", "pass"]
# As /usr/bin/nvidia-driver is, but for the root of the node.
PROGRAM = """
import sys
sys.path.insert(0, {lib!r})
from driverctr.cli import leave, main
from pathlib import Path
from driverctr.paths import Paths
Paths.root = Path({root!r})
Paths.__record_slots__["root"].default = Paths.root
from driverctr import vantage
vantage.find.__defaults__ = (Paths.root,)
try:
    status = main()
except SystemExit as end:
    status = end.code
leave(status)
"""


def cpu_seconds(argv: list[str]) -> float:
    """User and system time of one run, whose output goes nowhere."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(argv[0], argv, {"PATH": os.environ["PATH"]}, file_actions=quiet)
    _, status, used = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 6), (argv, status)  # 6: `who` found somebody
    return used.ru_utime + used.ru_stime


make = import_module("serving_node").make
folder = Path(tempfile.mkdtemp())
runs = {"bare": BARE}
for node, used in (("idle", False), ("used", True)):
    make(folder / node, used=used)
    program = folder / f"{node}.py"
    program.write_text(PROGRAM.format(lib=LIB, root=str(folder / node)))
    runs |= {f"{call} {node}": [PYTHON, "-IS", str(program), *call.split()] for call in CALLS}
times: dict[str, list[float]] = {name: [] for name in runs}
for _ in range(ROUNDS):
    for name, argv in runs.items():
        times[name].append(cpu_seconds(argv))
print(json.dumps({name: statistics.median(seconds) for name, seconds in times.items()}))
