"""In the container: does what the scenario asks, one JSON list a line on a socket, and answers in JSON."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from driverctr import firmware
from driverctr.errors import DriverError
from driverctr.log import Log
from driverctr.mounts import driverroot, propagation, rootstate, staging
from driverctr.mounts.driverroot import DriverRoot
from driverctr.mounts.syscalls import AT_RECURSIVE, OPEN_TREE_CLONE, Syscalls
from driverctr.paths import Paths

PATHS = Paths()
NVIDIA = "mount --make-runbindable /sys && mount --make-private /sys && mount --rbind / /run/nvidia/driver"


def export(times: int = 1) -> None:
    """As the product does."""
    propagation.settle(PATHS)
    for _ in range(times):
        driverroot.export(PATHS, log=Log())


def withdraw() -> None:
    """As the product does."""
    driverroot.withdraw(PATHS, {}, log=Log())


def die_between_tuck_and_detach() -> None:
    """Two trees, the old one on top, and the staging mounts still there."""
    propagation.settle(PATHS)
    root, kernel = DriverRoot(PATHS), Syscalls()
    with staging.staged(PATHS.root, root.place / "root", kernel, root.read()) as tree:
        clone = kernel.open_tree(tree, OPEN_TREE_CLONE | AT_RECURSIVE)
        root._tuck(clone)
        os._exit(9)


def nvidia() -> None:
    """As NVIDIA's driver container publishes its root."""
    subprocess.run(NVIDIA, shell=True, check=True)


def own_state() -> dict[str, Any]:
    """What we see of ourselves."""
    mounts = DriverRoot(PATHS).read()
    return {
        "proc": Path("/proc/self/status").exists(),
        "dev": Path("/dev/null").exists(),
        "sys": Path("/sys/module").is_dir(),
        "staging": [mount.target for mount in mounts if mount.target.startswith("/mnt/")],
        "root": next(mount.propagation for mount in mounts if mount.target == "/"),
        "ours": rootstate.read(PATHS).ours,
    }


def place_firmware(version: str) -> dict[str, Any]:
    """As the product does."""
    return firmware.place(PATHS, version, log=Log())


COMMANDS: dict[str, Callable[..., Any]] = {
    "export": export,
    "withdraw": withdraw,
    "crash": die_between_tuck_and_detach,
    "nvidia": nvidia,
    "own": own_state,
    "exists": lambda path: Path(path).exists(),
    "read": lambda path: Path(path).read_text(),
    "firmware": place_firmware,
    "firmware-undo": lambda data: firmware.undo(PATHS, data),
}


def main(place: Path) -> None:
    """Serve until killed."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(place))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as stream:
                for line in stream:
                    name, *arguments = json.loads(line)
                    try:
                        answer = {"result": COMMANDS[name](*arguments)}
                    except (DriverError, OSError) as error:
                        answer = {"error": str(error), "code": getattr(error, "code", "")}
                    stream.write(json.dumps(answer) + "\n")
                    stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
