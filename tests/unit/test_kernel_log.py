"""What the kernel said since a mark: records parsed, device lines left out, what cannot be read is said."""

import os

import pytest

from driverctr.facts import kernellog
from driverctr.facts.kernellog import Extract, Line, Mark
from driverctr.paths import Paths
from tests.unit.conftest import make_tree

OLDER = r"""6,338,82700000,-;pci 0000:00:1f.0: quirk: claimed by ICH6 ACPI/GPIO/TCO
 SUBSYSTEM=pci
 DEVICE=+pci:0000:00:1f.0
30,339,83000000,-;systemd[1]: with; semicolon
"""
NEWER = r"""4,340,84000001,-;nvidia: Unknown symbol drm_gem_object_free (err -2)
3,341,84000002,-,caller=T77;NVRM: The NVIDIA GPU 0001:01:00.0 (PCI ID: 10de:2901)\x0aNVRM: installed in this system is
4,342,84000003,c;nvidia-uvm: a tab\x09and an umlaut \xc3\xa4
3,343,84000004,-;NVRM: Xid (PCI:0001:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
6,344,84000005,-;nvidia 0001:01:00.0: enabling device
6,345,84000006,-;eth0: link up
"""


def test_what_came_since_the_mark_is_told_without_device_lines(paths: Paths) -> None:
    make_tree(paths.root, {"dev/kmsg": OLDER})
    with Mark(paths) as mark:
        assert mark.read() == Extract()
        with paths.kernel_log.open("a") as file:
            file.write(NEWER)
        said = mark.read()
        assert mark.read() == said
    with Mark(paths) as later:
        assert later.read() == Extract()
    assert said.lines[0] == Line(340, 84.000001, "nvidia: Unknown symbol drm_gem_object_free (err -2)")
    assert said.texts[1:4] == (
        "NVRM: The NVIDIA GPU 0001:01:00.0 (PCI ID: 10de:2901)",
        "NVRM: installed in this system is",
        "nvidia-uvm: a tab\tand an umlaut ä",
    )
    assert not said.gap and not said.unknown


def test_lines_are_found_by_driver_module_and_xid(paths: Paths) -> None:
    make_tree(paths.root, {"dev/kmsg": OLDER + NEWER})
    said = kernellog.read(paths)
    assert len(said.of_nvidia()) == 6 and not any("eth0" in text for text in said.of_nvidia())
    assert [text.partition(":")[0] for text in said.of_module("nvidia")] == ["nvidia", "nvidia 0001"]
    assert said.of_module("nvidia_uvm") == said.of_module("nvidia-uvm") == ("nvidia-uvm: a tab\tand an umlaut ä",)
    assert [text[:19] for text in said.xids()] == ["NVRM: Xid (PCI:0001"]


@pytest.mark.parametrize("tree", [{}, {"dev/kmsg": None}])
def test_a_log_that_cannot_be_read_is_said_to_be_unknown(paths: Paths, tree: dict[str, None]) -> None:
    make_tree(paths.root, tree)
    with Mark(paths) as mark:
        said = mark.read()
    assert not said.lines and str(paths.kernel_log) in said.unknown


def test_a_record_lost_while_reading_is_passed_over_and_a_gap(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(paths.root, {"dev/kmsg": ""})
    answers: list[bytes | OSError] = [b"6,1,1,-;one\n", BrokenPipeError(), b"6,5,1,-;five\n", BlockingIOError()]

    def read(descriptor: int, size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "read", read)
    said = kernellog.read(paths)
    assert said.texts == ("one", "five") and said.gap
