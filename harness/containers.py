"""Containers that end within a limit and leave nothing behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from requests.exceptions import ConnectionError as ConnectionFailed
from requests.exceptions import ReadTimeout, RequestException

from harness import dockerd, proc
from harness.errors import HarnessError

# Seconds for a call that only asks the daemon for something; the wait for a container's end has its own limit.
CALL_LIMIT_S = 120
# Seconds between SIGTERM and SIGKILL.
GRACE_S = 5
POLL_S = 0.2


def output(tag: str, argv: Sequence[str], limit: float, **options: Any) -> str:
    """Return the standard output of a command in a container.

    `options` are those of the Docker SDK; there is no network unless they say so. Raises HarnessError with the end of
    what it said if it fails or has not ended within `limit` seconds.
    """
    with started(tag, argv, **options) as container:
        return finish(container, limit)


@contextmanager
def started(tag: str, argv: Sequence[str], **options: Any) -> Iterator[Container]:
    """A container that runs a command, and is removed at the end of the block, however that comes.

    Raises HarnessError for what Docker refuses.
    """
    client = dockerd.client(CALL_LIMIT_S)
    # Named before it is made: whatever ends us meanwhile, it can be found.
    name = f"driverctr-dev-{uuid.uuid4().hex[:12]}"
    with _told(" ".join(argv)):
        try:
            container = client.containers.create(
                tag, list(argv[1:]), entrypoint=argv[0], name=name, **{"network_mode": "none", **options}
            )
            container.start()
            yield container
        finally:
            _remove(client, name)


def finish(container: Container, limit: float) -> str:
    """Return the standard output of a container that ends within `limit` seconds; raises HarnessError as `output`."""
    try:
        status = container.wait(timeout=limit)["StatusCode"]
    except (ReadTimeout, ConnectionFailed) as error:  # the SDK raises the one or the other when time is over
        raise HarnessError(f"{_command(container)}: no end after {limit:.0f} s\n{_tail(container)}") from error
    if status != 0:
        raise HarnessError(f"{_command(container)}: exit {status}\n{_tail(container)}")
    return container.logs(stdout=True, stderr=False).decode(errors="replace")


def wait_for(container: Container, word: str, limit: float) -> None:
    """Wait until a container has said a word; raises HarnessError if it ends before, or says none in time."""
    deadline = time.monotonic() + limit
    while word not in container.logs().decode(errors="replace"):
        container.reload()
        if container.status != "running" or time.monotonic() > deadline:
            raise HarnessError(f"{_command(container)}: never said {word!r}\n{_tail(container)}")
        time.sleep(POLL_S)


def _remove(client: docker.DockerClient, name: str) -> None:
    """Remove a container that may still run: it is asked first, since what it has started may need it to end."""
    with suppress(NotFound):
        container = client.containers.get(name)
        container.stop(timeout=GRACE_S)
        try:
            container.remove(force=True)
        except APIError as error:
            if error.status_code != HTTPStatus.CONFLICT:  # else somebody else is removing it just now
                raise


def _command(container: Container) -> str:
    return " ".join((container.attrs["Path"], *container.attrs["Args"]))


def _tail(container: Container) -> str:
    return proc.tail(container.logs().decode(errors="replace"))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say as a HarnessError what Docker refuses or does not answer in time."""
    try:
        yield
    except (DockerException, RequestException) as error:
        raise HarnessError(f"{what}: docker: {error}") from error
