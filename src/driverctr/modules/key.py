"""What a set of modules is known by: all that decides whether a kernel may take it, with no headers and no compiler."""

from __future__ import annotations

import json
from collections.abc import Mapping

from driverctr.facts.kernel import KernelFacts
from driverctr.hashing import sha256_of
from driverctr.modules import Wish
from driverctr.patches import PATCHES, Patch
from driverctr.records import asdict, field_names, frozen, replace
from driverctr.userspace.image import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1


@frozen
class Key:
    """The lookup key of DESIGN section 5; an empty text stands for what was not known when it was made.

    `source_sha256` covers the module source and our patches for it, `kernel_version` is `uname -v`, `kernel_build_id`
    the GNU build-id in /sys/kernel/notes.
    """

    driver_version: str
    module_type: str
    source_sha256: str
    architecture: str
    kernel_release: str
    kernel_version: str
    kernel_build_id: str
    mofed_sha256: str = ""
    signer: str = ""
    schema: int = SCHEMA

    @property
    def document(self) -> str:
        """The key as it is stored and signed: JSON with its fields in order."""
        return json.dumps(asdict(self), sort_keys=True, indent=2) + "\n"

    @property
    def digest(self) -> str:
        """The name of the entry: a SHA-256 over the document, in hexadecimal."""
        return sha256_of(self.document.encode())

    @property
    def wish(self) -> Wish:
        """The three fields by which people speak of it."""
        return Wish(self.kernel_release, self.driver_version, self.module_type)

    def names(self) -> tuple[Key, ...]:
        """The keys under which a fitting entry may lie, the most exact first.

        Who built it for a kernel that did not run yet may not have known the kernel's build-id.
        """
        return (self, replace(self, kernel_build_id="")) if self.kernel_build_id else (self,)

    def differing(self, other: Key) -> list[str]:
        """Each field that keeps an entry under `other` from fitting, as "field: wanted X, there Y"."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in field_names(self))
        return [
            describe_difference(name, wanted, there)
            for name, wanted, there in pairs
            if wanted != there and not (name == "kernel_build_id" and not there)
        ]


def describe_difference(name: str, wanted: object, there: object) -> str:
    """For a sentence about what keeps an entry from fitting."""
    return f"{name}: wanted {_short(wanted)}, there {_short(there)}"


def _short(value: object) -> str:
    text = str(value)
    return (text if len(text) < 60 else f"{text[:12]}...") or "unknown"


def make(wish: Wish, described: Image, kernel: KernelFacts) -> Key:
    """The key of modules wished for a kernel; raises DriverError (no-modules) where the image has no such source."""
    source = described.source(wish.driver_version, wish.module_type)
    return Key(
        driver_version=wish.driver_version,
        module_type=wish.module_type,
        source_sha256=source_digest(source.sha256, wish),
        architecture=kernel.architecture,
        kernel_release=wish.kernel_release,
        kernel_version=kernel.version,
        kernel_build_id=kernel.build_id,
    )


def source_digest(tree: str, wish: Wish, table: tuple[Patch, ...] = PATCHES) -> str:
    """A digest of a source tree's own digest and every patch of ours that some kernel needs for it."""
    parts = [f"{tree}\n".encode()]
    for patch in table:
        if patch.concerns(wish.module_type, wish.driver_version):
            parts += [f"{patch.file} {patch.kernels}\n".encode(), patch.path.read_bytes()]
    return sha256_of(b"".join(parts))


def read(document: Mapping[str, Any]) -> Key:
    """A key from its document; raises ValueError for one that is not ours or of another schema."""
    if document.get("schema") != SCHEMA:
        raise ValueError(f"key schema {document.get('schema')!r}, we read {SCHEMA}")
    names = set(field_names(Key))
    if set(document) != names or not all(isinstance(document[name], str) for name in names - {"schema"}):
        raise ValueError("the key's fields are not ours")
    if unreadable := [name for name in sorted(names - {"schema"}) if not document[name].isprintable()]:
        raise ValueError(f"the key's {unreadable[0]} is {document[unreadable[0]]!a}")
    return Key(**document)
