"""The image under test: built once, its root file system unpacked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from harness import containers, dockerd, image, imagefiles


@dataclass(frozen=True)
class Ran:
    """What a command in a container came to."""

    exit_status: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def client() -> docker.DockerClient:
    """Return a client of the daemon that has the image."""
    return dockerd.client()


@pytest.fixture(scope="session")
def tag() -> str:
    """Return the tag of the image built from the sources as they are."""
    return image.build()


@pytest.fixture(scope="session")
def rootfs(tag: str) -> Path:
    """Return the folder with the image's root file system."""
    return imagefiles.export_rootfs(tag)


@pytest.fixture(scope="session")
def run(tag: str) -> Run:
    """Return a function that runs a command in a container with no privilege at all."""
    return ran_in(tag)


def ran_in(tag: str) -> Run:
    """Return a function that runs a command in a container of an image, with no privilege at all."""

    def in_container(*argv: str, user: str = "", environment: Sequence[str] = ()) -> Ran:
        options = {"cap_drop": ["ALL"], "user": user, "environment": list(environment)}
        with containers.started(tag, argv, **options) as container:
            status = container.wait(timeout=120)["StatusCode"]
            stdout = container.logs(stdout=True, stderr=False).decode(errors="replace")
            stderr = container.logs(stdout=False, stderr=True).decode(errors="replace")
            return Ran(status, stdout, stderr)

    return in_container
