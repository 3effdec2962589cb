"""The lookup key of a module set: what decides it, and what two of them differ in."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from driverctr.errors import DriverError
from driverctr.facts.kernel import KernelFacts
from driverctr.modules import Wish, key
from driverctr.modules.key import Key
from driverctr.patches import PATCHES
from driverctr.userspace.image import Image, ModuleType, Source
from driverctr.versions import DriverVersion

KERNEL = KernelFacts("6.1.0-56-amd64", "#1 SMP Debian 6.1.192-2", "x86_64", "ab" * 20, "", frozenset(), True)
VERSION = DriverVersion("535.261.03")
IMAGE = Image(
    VERSION,
    (
        Source(ModuleType.OPEN, VERSION, Path("/usr/src/open"), "11" * 32),
        Source(ModuleType.PROPRIETARY, VERSION, Path("/usr/src/nvidia"), "22" * 32),
    ),
    "debian",
    "amd64",
)
WISH = Wish(KERNEL.release, VERSION.text, "open")


def made() -> Key:
    return key.make(WISH, IMAGE, KERNEL)


def test_the_key_is_made_without_headers_and_compiler_and_read_back() -> None:
    assert key.read(json.loads(made().document)) == made()
    assert made().wish == WISH


@pytest.mark.parametrize("field", [field.name for field in fields(Key) if field.name != "schema"])
def test_every_field_decides_the_digest_and_is_named_where_it_differs(field: str) -> None:
    changes: dict[str, Any] = {field: "another"}
    other = replace(made(), **changes)
    assert other.digest != made().digest
    assert [line.split(":")[0] for line in made().differing(other)] == [field]


def test_the_source_digest_covers_our_patches_for_that_source_only() -> None:
    assert PATCHES[0].module_type == "open"
    assert key.source_digest("11" * 32, WISH) != key.source_digest("11" * 32, WISH, table=())
    other = replace(WISH, module_type="proprietary")
    assert key.source_digest("22" * 32, other) == key.source_digest("22" * 32, other, table=())


def test_an_entry_built_before_the_kernel_ran_fits_though_its_build_id_was_not_known() -> None:
    exact, before = made().names()
    assert exact == made() and before.kernel_build_id == ""
    assert made().differing(before) == []
    assert before.differing(made()) != []
    assert before.names() == (before,)


def test_a_source_the_image_lacks_has_no_key() -> None:
    with pytest.raises(DriverError, match="has no open module source of driver 580"):
        key.make(replace(WISH, driver_version="580.1"), IMAGE, KERNEL)


@pytest.mark.parametrize("change", [{"schema": 2}, {"more": "x"}, {"signer": 1}])
def test_a_document_that_is_not_ours_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"schema|fields"):
        key.read({**json.loads(made().document), **change})
