"""Debian's package sources on a machine that has none (Ubuntu): those that Docker's Debian image comes with."""

from __future__ import annotations

from pathlib import Path

from docker.errors import DockerException, ImageNotFound

from harness import cache, dockerd, proc
from harness.errors import HarnessError

IMAGE = "debian:bookworm-slim"
PARTS = ("etc/apt", "usr/share/keyrings")


def root() -> Path:
    """Return a folder with the image's apt configuration and keyrings, fetched once.

    Raises HarnessError where the image cannot be had.
    """
    return cache.entry("debian-image", [IMAGE, *PARTS], _fetch)


def _fetch(to: Path) -> None:
    client = dockerd.client()
    try:
        try:
            client.images.get(IMAGE)
        except ImageNotFound:
            client.images.pull(IMAGE)
        container = client.containers.create(IMAGE, "true")
    except DockerException as error:
        raise HarnessError(
            f"this machine has no package sources of Debian 12, and the image {IMAGE}, which has, cannot be pulled: "
            f"{error}",
            "Name a sources.list of Debian 12 in DRIVERCTR_APT_SOURCES, or give Docker a registry that has the image",
        ) from error
    try:
        for part in PARTS:
            chunks, _ = container.get_archive(f"/{part}")
            packed, folder = to / "part.tar", to / Path(part).parent
            packed.write_bytes(b"".join(chunks))
            folder.mkdir(parents=True, exist_ok=True)
            proc.run(["tar", "--extract", "--no-same-owner", "--file", packed, "--directory", folder])
            packed.unlink()
    finally:
        container.remove()
