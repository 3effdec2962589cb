"""The verbs of `driverctr store`: what lies in the store, whether it is whole, what fits, and how it travels."""

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from driverctr import wishes
from driverctr.conceal import printed
from driverctr.errors import Code, DriverError
from driverctr.facts import gpus, kernel, supported
from driverctr.facts.kernel import KernelFacts
from driverctr.modules import archive, key, pins, provenance
from driverctr.modules import store as stores
from driverctr.modules.entry import Entry, Refused
from driverctr.modules.key import Key
from driverctr.modules.pins import Pins
from driverctr.modules.store import Store
from driverctr.modules.userspaces import Userspaces, shares
from driverctr.steps import Tools
from driverctr.userspace import image
from driverctr.values import parse_size
from driverctr.versions import KernelRelease

SHORTEST = 6
"""Digits by which an entry can be named at least."""


def open_store(tools: Tools) -> Store:
    """The store of the settings; raises DriverError (no-modules, store-unusable)."""
    folder = stores.locate(tools.paths, tools.config)
    return Store.open(folder, tools.runner.log, tools.config.store_max_size)


def show(tools: Tools, arguments: argparse.Namespace) -> int:
    """Print what lies in the store."""
    found = describe(open_store(tools), kernel.read(tools.paths.root))
    sys.stdout.write(printed(found if arguments.json else format_list(found)))
    return 0


def describe(store: Store, running: KernelFacts) -> dict[str, Any]:
    """The store as a document: sizes in bytes, times in UTC."""
    try:
        pinned = pins.read(store.folder)
    except DriverError as error:
        store.log.warning(f"store: what is pinned is not known: {error}", code=error.code.value)
        pinned = Pins()
    reasons, entries = pinned.reasons(), store.entries()
    return {
        "schema": 1,
        "folder": str(store.folder),
        "size": sum(found.size for found in entries),
        "entries": [
            {
                "digest": found.key.digest,
                **{name: value for name, value in json.loads(found.key.document).items() if name != "schema"},
                "size": found.size,
                "pinned": reasons.get(found.key.digest, ""),
                "used": f"{datetime.fromtimestamp(found.used, UTC):%Y-%m-%dT%H:%M:%SZ}",
                "fits": runs_on(found.key, running),
                "provenance": dict(found.provenance),
            }
            for found in entries
        ],
        "aside_size": store.aside_size,
        **describe_userspaces(Userspaces(store), pinned.versions()),
        "refused": [
            {"folder": str(seen.folder), "reason": seen.reason, "newer": seen.newer}
            for seen in store.look()
            if isinstance(seen, Refused)
        ],
    }


def describe_userspaces(kept: Userspaces, pinned: Collection[str]) -> dict[str, Any]:
    """What is kept beside the modules; `alone` are the bytes of a version that no other has."""
    found = kept.all()
    alone = shares(found)
    return {
        "userspace_size": kept.size,
        "userspaces": [
            {
                "driver_version": one.driver_version,
                "files": len(one.items),
                "size": one.size,
                "alone": alone[one.driver_version],
                "pinned": one.driver_version in pinned,
            }
            for one in found
        ],
    }


def runs_on(found: Key, running: KernelFacts) -> bool:
    """Whether an entry was made for the kernel that runs; its build-id may not have been known."""
    return (
        (found.architecture, found.kernel_release) == (running.architecture, running.release)
        and found.kernel_version == running.version
        and found.kernel_build_id in ("", running.build_id)
    )


def format_list(found: dict[str, Any]) -> str:
    """A line for each entry, and one for each folder that is none."""
    rows = [("KEY", "MB", "LAST USED", "RUNS HERE", "PINNED", "MODULES")]
    rows += [
        (
            one["digest"][:12],
            f"{one['size'] / 1e6:.0f}",
            one["used"].replace("T", " ").rstrip("Z"),
            "yes" if one["fits"] else "no",
            one["pinned"] or "-",
            f"{one['module_type']} {one['driver_version']} for {one['kernel_release']} {one['kernel_version']}",
        )
        for one in found["entries"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    lines += [f"{'newer' if one['newer'] else 'damaged'}: {one['reason']}" for one in found["refused"]]
    lines += [
        f"userspace of {one['driver_version']}: {one['size'] / 1e6:.0f} MB, {one['alone'] / 1e6:.0f} MB of it its own"
        for one in found["userspaces"]
    ]
    if found["userspaces"]:
        lines.append("STORE_MAX_SIZE does not count userspaces: one stays while a driver of its version is pinned")
    if found["aside_size"]:
        lines.append(
            f"set aside as damaged: {found['aside_size'] / 1e6:.0f} MB, which `driverctr store prune` gives up"
        )
    size = found["size"] + found["userspace_size"] + found["aside_size"]
    lines.append(f"{len(found['entries'])} entries, {size / 1e6:.0f} MB in {found['folder']}")
    return "\n".join(lines) + "\n"


def verify(tools: Tools, arguments: argparse.Namespace) -> int:
    """Hash everything; exit status 0 if all is whole, else that of store-unusable."""
    store = open_store(tools)
    tools.signals.install()
    wrong = store.verify()
    for seen in wrong:
        sys.stdout.write(printed(f"{'newer' if seen.newer else 'damaged'}: {seen.reason}\n"))
    kept = Userspaces(store)
    damaged = kept.verify(*kept.all())
    for reason in damaged:
        sys.stdout.write(printed(f"damaged: {reason}\n"))
    sys.stdout.write(printed(f"{len(store.entries())} entries are whole\n"))
    return Code.STORE_UNUSABLE.exit_status if damaged or any(not seen.newer for seen in wrong) else 0


def explain(tools: Tools, arguments: argparse.Namespace) -> int:
    """Print the entry that fits; or, with the exit status of no-modules, what differs in the nearest."""
    store = open_store(tools)
    facts = kernel_of(tools, arguments.kernel)
    try:
        found = store.find(wanted_key(tools, facts))
    except DriverError as error:
        sys.stdout.write(printed(f"miss: {error.message}\n"))
        return error.code.exit_status
    doubt = provenance.judge(store, found, facts, tools.paths.root)
    if doubt is None:
        sys.stdout.write(printed(f"hit: {found} in {found.folder}\n"))
    else:
        sys.stdout.write(printed(f"miss: {doubt.reason}; it is taken if nothing else can be had\n"))
    if difference := provenance.describe_compiler(found, facts):
        sys.stdout.write(printed(f"warning: {difference}\n"))
    return 0 if doubt is None else Code.NO_MODULES.exit_status


def kernel_of(tools: Tools, release: str | None) -> KernelFacts:
    """The kernel that runs, or another one of this node."""
    return kernel.read(tools.paths.root, KernelRelease(release).text if release else None)


def wanted_key(tools: Tools, facts: KernelFacts) -> Key:
    """The key of what a start on that kernel would want."""
    described = image.read(tools.paths.root)
    support = supported.of_gpus(tools.paths, gpus.read(tools.paths))
    return key.make(wishes.make_wish(tools.config, described, facts.release, support), described, facts)


def prune_to(tools: Tools, arguments: argparse.Namespace) -> int:
    """Print what went."""
    words = arguments.max_size
    most = parse_size("--max-size", words) if words else tools.config.store_max_size
    store = open_store(tools)
    tools.signals.install()
    if freed := store.clear_aside():
        sys.stdout.write(printed(f"given up: what was set aside as damaged, {freed / 1e6:.0f} MB\n"))
    for gone in store.prune(most):
        sys.stdout.write(printed(f"given up: {gone}, {gone.size / 1e6:.0f} MB\n"))
    for version in Userspaces(store).prune(pins.read(store.folder).versions()):
        sys.stdout.write(printed(f"given up: the userspace of {version}\n"))
    left = store.entries()
    sys.stdout.write(printed(f"{len(left)} entries, {sum(found.size for found in left) / 1e6:.0f} MB are left\n"))
    return 0


def export_to(tools: Tools, arguments: argparse.Namespace) -> int:
    """Write the entries asked for to a file."""
    store = open_store(tools)
    tools.signals.install()
    chosen = choose(store.entries(), arguments.digests, arguments.kernel)
    archive.write(chosen, arguments.file)
    for found in chosen:
        sys.stdout.write(printed(f"exported: {found}\n"))
    return 0


def choose(entries: Sequence[Entry], digests: Sequence[str], release: str | None) -> list[Entry]:
    """The entries named, by the beginning of their digests or by kernel release; raises DriverError (no-modules)."""
    chosen = [found for found in entries if release in (None, found.key.kernel_release)]
    for digest in digests:
        fitting = [found for found in chosen if found.key.digest.startswith(digest)]
        if len(digest) < SHORTEST or len(fitting) != 1:
            raise DriverError(
                Code.NO_MODULES,
                f"{digest!r} names {len(fitting)} entries of the store{f' for {release}' if release else ''}",
                f"Give {SHORTEST} digits or more of one that `driverctr store list` shows",
            )
    if digests:
        chosen = [found for found in chosen if found.key.digest.startswith(tuple(digests))]
    if not chosen:
        raise DriverError(
            Code.NO_MODULES,
            f"the store has no entry{f' for {release}' if release else ''}",
            "See `driverctr store list`",
        )
    return chosen


def import_from(tools: Tools, arguments: argparse.Namespace) -> int:
    """Take a file's entries into the store."""
    store = open_store(tools)
    tools.signals.install()
    for found in archive.read(arguments.file, store):
        sys.stdout.write(printed(f"imported: {found}\n"))
    return 0


def push(tools: Tools, arguments: argparse.Namespace) -> int:
    """Sign the entries asked for, and send those that are not there yet."""
    from driverctr.modules import push as pushing
    from driverctr.modules import signing

    where = arguments.to or tools.config.remote_url
    if not where:
        raise DriverError(Code.BAD_USAGE, "there is nowhere to push to", "Give --to FOLDER or URL, or set REMOTE_URL")
    store = open_store(tools)
    private = signing.read_private(arguments.private_key)
    tools.signals.install()
    target = pushing.target_of(where, tools.config.child_environment, store.log, tools.signals.sleep)
    for found in choose(store.entries(), arguments.digests, arguments.kernel):
        sent = pushing.push(found.key, found.module_set, target, private, store.log)
        sys.stdout.write(printed(f"{'pushed' if sent else 'there already'}: {found}\n"))
    return 0


def keygen(tools: Tools, arguments: argparse.Namespace) -> int:
    """Make a pair, and print the public key as nodes take it."""
    from driverctr.modules import signing

    try:
        sys.stdout.write(printed(f"{signing.make_pair(arguments.folder)}\n"))
    except OSError as error:
        place = error.filename or arguments.folder
        raise DriverError(
            Code.NODE_FILE, f"{place}: {error.strerror}", "Name a folder that can be written to"
        ) from error
    return 0
