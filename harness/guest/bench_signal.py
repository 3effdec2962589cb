"""Seconds from SIGTERM, sent while a compiler runs, to the end of all that a build runs, and of itself; in a container.

Arguments: kernel release, and for each build the seconds from its start after which the next compiler seen brings the
signal. We are the container's first process: what is left of a build is seen here.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

RELEASE, MOMENTS = sys.argv[1], [float(word) for word in sys.argv[2:]]
LIMIT = 60.0


def living() -> dict[int, str]:
    """Every process but ourselves that has not ended, by its short name."""
    found = {}
    for folder in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            before, _, after = (folder / "stat").read_text().rpartition(")")
            if after.split()[0] not in "XZ" and int(folder.name) != os.getpid():
                found[int(folder.name)] = before.partition("(")[2]
    return found


def stops() -> Iterator[dict[str, object]]:
    """A build, and its end, for each moment that it lives to see."""
    for moment in MOMENTS:
        with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
            words = ["nvidia-driver", "build", "--kernel", RELEASE, "--output", f"{folder}/out"]
            build = subprocess.Popen(words, stdout=log, stderr=log)
            time.sleep(moment)
            while "cc1" not in living().values():
                if build.poll() is not None:
                    assert build.returncode == 0, Path(log.name).read_text()
                    return
                time.sleep(0.005)
            began = time.monotonic()
            build.send_signal(signal.SIGTERM)
            while set(living()) - {build.pid} and time.monotonic() - began < LIMIT:
                time.sleep(0.005)
            group = time.monotonic() - began
            status = build.wait(LIMIT)
            assert status == 128 + signal.SIGTERM, (status, Path(log.name).read_text())
            yield {"group": group, "all": time.monotonic() - began}


print(json.dumps(list(stops())))
