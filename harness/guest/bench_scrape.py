"""Wall seconds of a scrape by HTTP of a driver that serves eight GPUs, beside a store; in a container of the image.

The kernel's trees are copies with as many files as such a node has.
"""

import json
import os
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, "/opt/driverctr/lib")

from driverctr import config, pidlock, verify
from driverctr.kmod import Kmod
from driverctr.log import Log
from driverctr.metrics.monitor import Monitor
from driverctr.metrics.server import Server, listen
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.status import Phase, Status, StepTime
from driverctr.steps import Tools
from driverctr.syslog import Syslog
from driverctr.verify import Expected

ROUNDS = 100
GPUS, FUNCTIONS, MOUNTS, PARAMETERS = 8, 300, 200, 60
MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset")
BUILD_ID = bytes(range(20))
NOTE = b"\4\0\0\0\x14\0\0\0\3\0\0\0GNU\0" + BUILD_ID

root = Path(tempfile.mkdtemp())


def write(name: str, content: str | bytes) -> None:
    """A file of the tree."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


for name in MODULES:
    folder = f"sys/module/{name.replace('-', '_')}"
    for file, text in {"version": "535.309.01", "refcnt": "3", "initstate": "live", "srcversion": "AB12"}.items():
        write(f"{folder}/{file}", f"{text}\n")
    write(f"{folder}/notes/.note.gnu.build-id", NOTE)
    for number in range(PARAMETERS):
        write(f"{folder}/parameters/p{number}", "1\n")
write("proc/driver/nvidia/params", "".join(f"Parameter{number}: 1\n" for number in range(PARAMETERS)))
write("proc/devices", "Character devices:\n195 nvidia\n195 nvidiactl\n510 nvidia-uvm\n\nBlock devices:\n")
addresses = []
for number in range(FUNCTIONS):
    address = f"0000:{number // 8:02x}:{number % 8:02x}.0"
    ours = number % 8 == 0 and number // 8 < GPUS
    write(f"sys/bus/pci/devices/{address}/vendor", "0x10de\n" if ours else "0x8086\n")
    write(f"sys/bus/pci/devices/{address}/class", "0x030200\n" if ours else "0x088000\n")
    if ours:
        addresses.append(address)
        (root / f"sys/bus/pci/devices/{address}/driver").symlink_to("../../../bus/pci/drivers/nvidia")
        write(f"proc/driver/nvidia/gpus/{address}/information", f"Device Minor: \t {number // 8}\n")
mounts = "".join(f"{n} 1 0:{n} / /mnt/{n} rw,relatime shared:{n} - tmpfs tmpfs rw\n" for n in range(30, 30 + MOUNTS))
write("proc/self/mountinfo", "1 0 0:1 / / rw - overlay overlay rw\n" + mounts)
write("run/nvidia/nvidia-driver.pid", f"{os.getpid()}\n")
paths, signals = Paths(root), Signals()
expected = Expected(
    "535.309.01",
    {name: BUILD_ID.hex() for name in MODULES},
    {"nvidia": tuple(f"NVreg_Parameter{number}=1" for number in range(10))},
    gpus=tuple(addresses),
    root=True,
)
steps = tuple(StepTime(name, 1.25, "done") for name in ("withdraw", "modules", "load", "verify", "publish"))
tools = Tools(
    paths,
    config.load({}),
    Runner({"PATH": ""}, Log()),
    Kmod(),
    signals,
    Syslog(root / "log", root),
    Budget(signals, 5),
)
monitor = Monitor(tools)
told = Status(Phase.READY, 100.0, os.getpid(), started=90.0, driver_version="535.309.01", steps=steps)
monitor.tell(replace(told, expected=expected.as_dict(), gpus_answering=dict.fromkeys(addresses, True)))
listening = listen("127.0.0.1", 0)
place = ("127.0.0.1", int(listening.getsockname()[1]))
server = Server(listening, monitor)
server.start()


def scrape() -> float:
    """Seconds from the connection to the last byte."""
    began = time.perf_counter()
    with socket.create_connection(place, timeout=10) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b""
        while part := client.recv(1 << 16):
            text += part
    seconds = time.perf_counter() - began
    assert b"driverctr_phase" in text and b"200 OK" in text
    return seconds


with pidlock.held(root / "run/lock"):
    differing = len(verify.look(paths, expected))
    times = sorted(scrape() for _ in range(ROUNDS))
server.close()
print(json.dumps({"seconds": statistics.median(times), "slowest": times[-1], "differs": differing}))
