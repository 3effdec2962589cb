"""What the store never gives up: the entries that serve, that served last, and those of kernels to come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.modules import DIGEST, key, locks, parse_document, trust
from driverctr.modules.key import Key
from driverctr.records import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "pins.json"
LOCK = "locks/pins"
SCHEMA = 1

KEPT = 2
"""Good sets remembered for each kernel release."""
KEPT_RELEASES = 4
"""Kernel releases whose good sets are remembered."""


@frozen
class Good:
    """A set that became ready, by the key it is stored under, and the parameters it had, by module."""

    key: Key
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@frozen
class Pins:
    """Good sets, the one that runs first, and by kernel release the digests of entries made before that kernel ran."""

    good: tuple[Good, ...] = ()
    next: Mapping[str, str] = field(default_factory=dict)

    def reasons(self) -> dict[str, str]:
        """Why an entry is pinned, by its digest: it runs, it ran before on this kernel or the last, or it is to run."""
        reasons = {digest: f"next kernel {release}" for release, digest in self.next.items()}
        if not self.good:
            return reasons
        running, *former = self.good
        here = [good for good in former if good.key.kernel_release == running.key.kernel_release]
        elsewhere = [good for good in former if good not in here]
        reasons |= {good.key.digest: "last good" for good in (*here[:1], *elsewhere[:1])}
        return {**reasons, running.key.digest: "running"}

    def versions(self) -> set[str]:
        """The driver versions of what served and is pinned."""
        pinned = self.reasons()
        return {good.key.driver_version for good in self.good if good.key.digest in pinned}


def read(store: Path) -> Pins:
    """The pins of a store's folder; raises DriverError (store-unusable) where they are not to be read or believed."""
    try:
        return _read(store)
    except (OSError, ValueError) as error:
        raise DriverError(
            Code.STORE_UNUSABLE,
            f"{store / FILE} is not as expected: {error}",
            "Remove it; the next driver that becomes ready is pinned in a new one",
        ) from error


def record_good(store: Path, good: Good) -> None:
    """Pin what became ready; for its kernel nothing is to come any more, for another build of that kernel it still is.

    Raises DriverError (store-unusable).
    """

    def has_run(release: str, digest: str) -> bool:
        return release == good.key.kernel_release and (
            digest == good.key.digest or _kernel_version(store, digest) in ("", good.key.kernel_version)
        )

    def change(pins: Pins) -> Pins:
        former = [seen for seen in pins.good if seen.key.digest != good.key.digest]
        coming = {release: digest for release, digest in pins.next.items() if not has_run(release, digest)}
        return Pins(_bounded((good, *former)), coming)

    _change(store, change)


def pin_next(store: Path, made: Key) -> None:
    """Pin an entry until its kernel has run; raises DriverError (store-unusable)."""
    _change(store, lambda pins: Pins(pins.good, {**pins.next, made.kernel_release: made.digest}))


def unpin_next(store: Path, release: str) -> None:
    """A kernel is not to run any more; raises DriverError (store-unusable)."""
    _change(store, lambda pins: Pins(pins.good, {name: pins.next[name] for name in pins.next if name != release}))


def _kernel_version(store: Path, digest: str) -> str:
    """`uname -v` of the kernel an entry was made for, "" where that is not known, or the entry is gone."""
    try:
        return key.read(parse_document(trust.read(store / "entries" / digest / "key.json"))).kernel_version
    except (OSError, ValueError, RecursionError, DriverError):
        return ""


def _bounded(good: Sequence[Good]) -> tuple[Good, ...]:
    """The newest of each release, and no more releases than are kept."""
    kept: list[Good] = []
    counts: dict[str, int] = {}
    for seen in good:
        release = seen.key.kernel_release
        if counts.get(release, 0) < KEPT and (release in counts or len(counts) < KEPT_RELEASES):
            counts[release] = counts.get(release, 0) + 1
            kept.append(seen)
    return tuple(kept)


def _change(store: Path, change: Callable[[Pins], Pins]) -> None:
    """Read, change, write, under a lock; what is damaged is replaced, what a newer driverctr wrote is left alone."""
    try:
        (store / LOCK).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locks.held_soon(store / LOCK):
            files.remove(*store.glob(f".{FILE}.*{files.PARTIAL}"))
            try:
                pins = _read(store)
            except ValueError:
                pins = None
            changed = change(pins or Pins())
            if changed != pins:
                files.write_atomic(store / FILE, json.dumps(_document(changed), indent=2) + "\n")
                files.sync(store)
    except OSError as error:
        raise DriverError(
            Code.STORE_UNUSABLE,
            f"{store / FILE} cannot be written: {error.strerror}",
            f"Make {store} writable, with room in it",
        ) from error


def _document(pins: Pins) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "good": [
            {
                "key": json.loads(good.key.document),
                "parameters": {name: list(words) for name, words in good.parameters.items()},
            }
            for good in pins.good
        ],
        "next": dict(pins.next),
    }


def _read(store: Path) -> Pins:
    """Raises DriverError (store-unusable) for one that is not to be believed, or newer; ValueError, OSError."""
    try:
        document = parse_document(trust.read(store / FILE))
    except FileNotFoundError:
        return Pins()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    schema = document.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise DriverError(Code.STORE_UNUSABLE, f"{store / FILE} was written by a newer driverctr; left alone")
    try:
        good = tuple(
            Good(key.read(seen["key"]), {name: tuple(map(str, words)) for name, words in seen["parameters"].items()})
            for seen in document["good"]
        )
        coming = {release: digest for release, digest in document["next"].items() if DIGEST.fullmatch(digest)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Pins(good, coming)
