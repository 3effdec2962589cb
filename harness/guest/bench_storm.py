"""CPU seconds of the wait from here on, told once a signal ends it; in a container of the image."""

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, "/opt/driverctr/lib")

from driverctr import hints
from driverctr.daemons import Daemon, Running
from driverctr.errors import Stopped
from driverctr.facts import events
from driverctr.health import LOOK_EVERY
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Signals
from driverctr.supervise import Supervisor
from driverctr.syslog import Syslog

looks: list[float] = []
judged: list[str] = []
is_nvidias = events._is_nvidias


def look() -> float:
    """In place of the look at the driver, which there is none of: only how often it is asked for counts."""
    looks.append(time.monotonic())
    return LOOK_EVERY


def judge(device: Any) -> bool:
    """Whether an event concerns us; that it came at all is told too."""
    judged.append(device.sys_name)
    return is_nvidias(device)


def no_daemon(daemon: Daemon) -> Running:
    """None is watched here, so that none can have to be started."""
    raise AssertionError(f"{daemon.name} is not watched")


paths, runner, signals = Paths(), Runner(), Signals()
signals.install()
syslog = Syslog(Path("/tmp/log"), Path("/tmp"))
waiting = Supervisor(no_daemon, runner, signals, syslog, lambda live: None, look)
with mock.patch.object(events, "_is_nvidias", judge), hints.listening(paths, runner.log) as heard:
    assert len(heard) == 2, "a hint is not to be had"
    began = time.process_time()
    print("listening", flush=True)
    try:
        waiting.wait((), heard)
    except Stopped:
        print(json.dumps({"seconds": time.process_time() - began, "looks": len(looks), "judged": len(judged)}))
