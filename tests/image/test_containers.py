"""How the harness runs a container: within a limit, and nothing is left of it."""

from __future__ import annotations

import docker
import pytest
from docker.errors import NotFound

from harness import containers
from harness.errors import HarnessError

pytestmark = pytest.mark.image


def test_what_it_says_is_returned(tag: str) -> None:
    assert containers.output(tag, ["sh", "-c", "echo said; echo more >&2"], 60) == "said\n"


@pytest.mark.parametrize(
    ("script", "limit", "told"),
    [
        ("echo begun; exec sleep 600", 2, "sleep 600: no end after 2 s\nbegun"),
        ("echo out; echo why >&2; exit 3", 60, r"exit 3: exit 3\n(out\nwhy|why\nout)"),
    ],
)
def test_one_that_fails_or_takes_too_long_is_told_and_removed(
    client: docker.DockerClient, tag: str, script: str, limit: float, told: str
) -> None:
    with pytest.raises(HarnessError, match=told), containers.started(tag, ["sh", "-c", script]) as container:
        containers.finish(container, limit)
    with pytest.raises(NotFound):
        client.containers.get(container.name or "")


def test_one_that_cannot_start_is_told(tag: str) -> None:
    with pytest.raises(HarnessError, match=r"nowhere: docker: .*nowhere"):
        containers.output(tag, ["nowhere"], 60)


def test_a_word_is_waited_for_no_longer_than_its_end(tag: str) -> None:
    with containers.started(tag, ["sh", "-c", "echo here; sleep 1"]) as container:
        containers.wait_for(container, "here", 60)
        with pytest.raises(HarnessError, match="never said 'gone'"):
            containers.wait_for(container, "gone", 60)
