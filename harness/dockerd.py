"""A Docker daemon to talk to: the machine's own where it answers, else one started here."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import DockerException

from harness import cache, proc
from harness.errors import HarnessError

# Under /run, not in the cache: the path of a socket has at most 107 bytes (unix(7)).
RUN = Path("/run/driverctr-dev")
START_LIMIT_S = 90
# A build step may say nothing for minutes.
CALL_LIMIT_S = 1800
POLL_S = 0.2


def client(call_limit: int = CALL_LIMIT_S) -> docker.DockerClient:
    """Return a client of a Docker daemon that answers; as root, one is started if none does.

    `call_limit` is how many seconds a call may take that has no limit of its own. Raises HarnessError if there is no
    daemon and none can be started.
    """
    found = _answering(call_limit)
    if found is not None:
        return found
    if "DOCKER_HOST" in os.environ:
        raise HarnessError(
            f"no Docker daemon answers at DOCKER_HOST={os.environ['DOCKER_HOST']}",
            "Start it, or unset DOCKER_HOST to have one started here",
        )
    if os.geteuid() != 0:
        raise HarnessError(
            "no Docker daemon answers, and only root can start one",
            "Start Docker and join its group, or run this as root",
        )
    with cache.lock("dockerd"):
        return _answering(call_limit) or _start(call_limit)


def _answering(call_limit: int) -> docker.DockerClient | None:
    for address in _addresses():
        with suppress(DockerException, OSError):
            found = docker.DockerClient(base_url=address, timeout=call_limit)
            found.ping()
            return found
    return None


def _addresses() -> Iterator[str]:
    chosen = os.environ.get("DOCKER_HOST")
    if chosen:
        yield chosen
        return
    for socket in (Path("/run/docker.sock"), _socket()):
        if socket.exists():
            yield f"unix://{socket}"


def _socket() -> Path:
    return RUN / "docker.sock"


def _start(call_limit: int) -> docker.DockerClient:
    """Start a daemon that leaves the machine's network and cgroups alone: everything here uses host networking."""
    storage = cache.root() / "docker"
    storage.mkdir(exist_ok=True)
    RUN.mkdir(exist_ok=True)
    argv: list[str | Path] = [
        proc.need("dockerd", "docker.io"),
        f"--host=unix://{_socket()}",
        f"--data-root={storage / 'data'}",
        f"--exec-root={RUN / 'exec'}",
        f"--pidfile={RUN / 'dockerd.pid'}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--iptables=false",
        "--ip6tables=false",
        "--bridge=none",
    ]
    log = storage / "dockerd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and daemon.poll() is None:
        found = _answering(call_limit)
        if found is not None:
            return found
        time.sleep(POLL_S)
    daemon.terminate()
    raise HarnessError(
        f"dockerd did not answer within {START_LIMIT_S} s:\n{proc.tail(log.read_text(errors='replace'))}",
        f"Its whole log is {log}",
    )
