"""CPU seconds of the probe and of a bare interpreter, interleaved; runs in a container of the image."""

import json
import os

ROUNDS = 40
OURS = ["/usr/bin/nvidia-driver", "probe_nvidia_peermem"]
BARE = ["/usr/bin/python3", "-I", "-c", "pass"]


def cpu_seconds(argv: list[str]) -> float:
    """User and system time of one run."""
    pid = os.posix_spawn(argv[0], argv, {"PATH": os.environ["PATH"]})
    _, status, used = os.wait4(pid, 0)
    assert status == 0, (argv, status)
    return used.ru_utime + used.ru_stime


times: dict[str, list[float]] = {"ours": [], "bare": []}
for _ in range(ROUNDS):
    times["ours"].append(cpu_seconds(OURS))
    times["bare"].append(cpu_seconds(BARE))
print(json.dumps({name: sum(seconds) / ROUNDS for name, seconds in times.items()}))
