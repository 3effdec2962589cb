"""CPU seconds of calls that are made often and of a bare interpreter, interleaved; runs in a container of the image.

Usage: bench_probe.py WORDS=STATUS...: the words of a call, and the exit status that it ends with here.
"""

import json
import os
import sys

ROUNDS = 40
CALLS = {words: int(status) for words, _, status in (call.rpartition("=") for call in sys.argv[1:])}
BARE = ["/usr/bin/python3", "-I", "-c", "pass"]


def cpu_seconds(argv: list[str], expected: int = 0) -> float:
    """User and system time of one run, whose output goes nowhere."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(argv[0], argv, {"PATH": os.environ["PATH"]}, file_actions=quiet)
    _, status, used = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == expected, (argv, status)
    return used.ru_utime + used.ru_stime


times: dict[str, list[float]] = {words: [] for words in (*CALLS, "bare")}
for _ in range(ROUNDS):
    for words, status in CALLS.items():
        times[words].append(cpu_seconds(["/usr/bin/nvidia-driver", *words.split()], status))
    times["bare"].append(cpu_seconds(BARE))
print(json.dumps({words: sum(seconds) / ROUNDS for words, seconds in times.items()}))
