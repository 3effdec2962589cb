"""What the VM tests share: the image under test, and their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import image, imagefiles

LONGEST_FIRST = (
    "test_scenarios.py",
    "test_reboot.py",
    "test_cycle.py",
    "test_precompiled.py",
    "test_mounts.py",
    "test_proving_ground.py",
)
"""Machines run beside each other: a long one that comes last would run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files in that order, after those of other folders; within one the tests stay as they are written."""
    place = {name: index for index, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, -1))


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """Return the root file system of the image built from the sources as they are."""
    return imagefiles.export_rootfs(image.build())
