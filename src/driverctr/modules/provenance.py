"""What an entry was built against, which its key does not tell: compared with the host's headers, where it has any."""

from collections.abc import Mapping
from pathlib import Path

from driverctr.errors import DriverError
from driverctr.facts import hostroot, kernel
from driverctr.facts.kernel import KernelFacts
from driverctr.hashing import sha256
from driverctr.modules import pins
from driverctr.modules.entry import Entry
from driverctr.modules.key import Key, describe_difference
from driverctr.modules.store import Store
from driverctr.records import frozen

CONFIGURATIONS = (".config", "include/config/auto.conf")
"""The kernel's configuration, the last as Kbuild includes it: headers of some distributions have no .config."""


@frozen
class Doubt:
    """An entry that is taken only if no other modules can be had, and why."""

    entry: Entry
    reason: str


def of_headers(build_dir: Path) -> dict[str, str]:
    """What decides whether a kernel takes modules built against these headers; an empty text where it is not known."""
    configurations = (digest(build_dir / name) for name in CONFIGURATIONS)
    return {
        "config_sha256": next(filter(None, configurations), ""),
        "symvers_sha256": digest(build_dir / "Module.symvers"),
    }


def digest(file: Path) -> str:
    """The SHA-256 of a file, "" where it cannot be read."""
    try:
        return sha256(file)
    except OSError:
        return ""


def judge(store: Store, found: Entry, wanted: KernelFacts, root: Path) -> Doubt | None:
    """Whether the host's headers for a kernel are other ones than an entry was built against.

    An entry that became ready on that kernel is not asked, since the kernel's word counts for more; nor is one where
    either side is not known. Headers of another build of the kernel tell nothing.
    """
    if not wanted.version or has_served(store, found.key):
        return None
    trees = kernel.header_trees(wanted.release, hostroot.host_roots(root))
    own = next((tree for tree in trees if kernel.version_of_tree(tree) == wanted.version), None)
    differences = differing(of_headers(own), found.provenance) if own else []
    if not differences:
        return None
    return Doubt(
        found,
        f"{found} was built against other headers than the host has, and has not served yet; it differs in "
        f"{'; '.join(differences)}",
    )


def has_served(store: Store, key: Key) -> bool:
    """Whether an entry became ready, as far as that is remembered."""
    try:
        return any(good.key == key for good in pins.read(store.folder).good)
    except DriverError:
        return False


def differing(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Each field that both sides know and that differs, as `Key.differing` tells it."""
    return [
        describe_difference(name, value, there[name])
        for name, value in wanted.items()
        if value and there.get(name) and value != there[name]
    ]


def describe_compiler(found: Entry, wanted: KernelFacts) -> str:
    """That an entry was built with another compiler than the kernel; "" where it was not, or that is not known.

    The first word is the name it was called by.
    """
    ours, kernels = found.provenance.get("compiler", ""), wanted.cc_version_text
    if not ours or not kernels or ours.partition(" ")[2] == kernels.partition(" ")[2]:
        return ""
    return f"built with {ours}, the kernel with {kernels}"
