"""Which sources and kernels our patches are for, and that what is chosen is there to be applied."""

import pytest

from driverctr import patches
from driverctr.patches import Patch
from driverctr.versions import DriverVersion

RESIZE = "open-535-pci-resize-resource.patch"


@pytest.mark.parametrize(
    ("module_type", "driver", "kernel", "files"),
    [
        ("open", "535.261.03", (6, 1, 192), [RESIZE]),
        ("open", "535.261.03", (5, 10, 0), [RESIZE]),
        ("open", "535.261.03", (6, 12, 255), [RESIZE]),
        ("open", "535.261.03", (5, 9, 255), []),
        ("open", "535.216.03", (6, 1, 192), []),
        ("open", "535.309.01", (6, 1, 192), []),
        ("proprietary", "535.261.03", (6, 1, 192), []),
    ],
)
def test_a_patch_is_for_one_source_and_a_range_of_kernels(
    module_type: str, driver: str, kernel: tuple[int, int, int], files: list[str]
) -> None:
    assert [patch.file for patch in patches.fitting(module_type, DriverVersion(driver), kernel)] == files


@pytest.mark.parametrize(
    ("driver", "kernel", "fits"),
    [
        ("550.54", (6, 1, 0), True),
        ("550.90", (6, 6, 30), True),
        ("550.53", (6, 6, 0), False),
        ("550.91", (6, 6, 0), False),
        ("550.90", (6, 0, 255), False),
        ("550.90", (6, 6, 31), False),
    ],
)
def test_both_ends_of_a_range_belong_to_it(driver: str, kernel: tuple[int, int, int], fits: bool) -> None:
    patch = Patch("x.patch", "why", "open", ("550.54", "550.90"), ((6, 1, 0), (6, 6, 30)))
    assert bool(patches.fitting("open", DriverVersion(driver), kernel, (patch,))) == fits


@pytest.mark.parametrize("patch", patches.PATCHES, ids=lambda patch: patch.file)
def test_each_patch_is_a_file_and_each_file_is_listed(patch: Patch) -> None:
    assert patch.path.read_text().count("\n@@ ") > 0
    assert {file.name for file in patch.path.parent.glob("*.patch")} == {listed.file for listed in patches.PATCHES}
