"""The userspace of versions that served, kept in the store, so that a rollback can export it with their modules.

- userspace/files/<SHA-256>: each content once, whatever versions have it
- userspace/<version>_<platform>.json: what belongs to a version; written last, and removed first
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from driverctr import files
from driverctr.deferred import hashlib
from driverctr.errors import Code, DriverError
from driverctr.hashing import sha256
from driverctr.modules import parse_document, trust
from driverctr.modules.store import USERSPACE, Store
from driverctr.records import frozen
from driverctr.userspace import listing
from driverctr.userspace.listing import Item, Listing

FILES = "files"

PIECE = 8 << 20
"""Bytes copied between two looks at whether to go on."""

SPARE = 512 << 20
"""Bytes that stay free on the store's disk: what is kept for a day that may not come must not fill it."""


@frozen
class Userspaces:
    """What a store keeps of userspaces."""

    store: Store

    @property
    def folder(self) -> Path:
        """Where the listings lie."""
        return self.store.folder / USERSPACE

    def file(self, item: Item) -> Path:
        """Where the content of a file lies."""
        return self.folder / FILES / item.sha256

    def find(self, version: str, platform: str) -> Listing:
        """What is kept of a version, with every file in its place; contents are believed only after `copy`.

        Raises DriverError (no-modules) whose message begins with "no userspace of".
        """
        nothing = f"no userspace of {version or 'a driver of no version'}"
        path = self._place(version, platform)
        try:
            found = self._read(path)
            if (found.driver_version, found.platform) != (version, platform):
                raise ValueError(f"it describes {found.driver_version} for {found.platform}")
            for item in found.files.values():
                if (there := trust.check_file(self.file(item)).st_size) != item.size:
                    raise ValueError(f"{item.path} has {there} bytes, not {item.size}")
        except FileNotFoundError as error:
            if Path(error.filename) == path:
                raise DriverError(Code.NO_MODULES, nothing) from error
            raise DriverError(Code.NO_MODULES, f"{nothing}: what was kept of it lacks {error.filename}") from error
        except (OSError, ValueError, RecursionError, DriverError) as error:
            raise DriverError(Code.NO_MODULES, f"{nothing}: {path}: {error}") from error
        return found

    def _read(self, path: Path) -> Listing:
        """A listing, whatever became of its contents; raises OSError, ValueError, RecursionError, DriverError."""
        return listing.parse(parse_document(trust.read(path)))

    def _is_newer(self, path: Path) -> bool:
        """Whether a newer driverctr wrote a listing: it is another's to read, and to give up."""
        try:
            schema = parse_document(trust.read(path)).get("schema")
        except (OSError, ValueError, RecursionError, DriverError):
            return False
        return type(schema) is int and schema > listing.SCHEMA

    def _place(self, version: str, platform: str) -> Path:
        return self.folder / f"{version.replace('/', '-')}_{platform}.json"

    def keep(self, wanted: Listing, root: Path, go_on: Callable[[], None]) -> bool:
        """Copy a userspace out of a root, whole or not at all, and only what is not there yet; False if all is.

        `go_on` is asked between pieces and may raise. Raises DriverError: no-space, store-unusable, no-modules where a
        file is not the one listed.
        """
        with suppress(DriverError):
            if self.find(wanted.driver_version, wanted.platform) == wanted:
                return False
        place = self._place(wanted.driver_version, wanted.platform)
        if self._is_newer(place):
            raise DriverError(Code.STORE_UNUSABLE, f"{place} was written by a newer driverctr; left alone")
        missing = {digest: item for digest, item in wanted.files.items() if not self._is_there(item)}
        with self.store.stage() as stage:
            self._check_room(sum(item.size for item in missing.values()))
            for digest, item in missing.items():
                copy(root / item.path, stage / digest, item, go_on)
                (stage / digest).chmod(0o644)
            files.sync(*stage.iterdir())
            with self.store.alone():
                self._make()
                for digest in missing:
                    (stage / digest).rename(self.folder / FILES / digest)
                files.sync(self.folder / FILES)
                files.write_atomic(place, wanted.document)
                files.sync(self.folder)
        self.find(wanted.driver_version, wanted.platform)
        return True

    def copy_out(self, item: Item, target: Path, go_on: Callable[[], None]) -> None:
        """Copy a content to where it is used, hashed on the way; what is damaged is given up.

        Raises DriverError (no-modules), OSError, and what `go_on` raises.
        """
        try:
            copy(self.file(item), target, item, go_on)
        except DriverError:
            files.remove(self.file(item))
            raise

    def _is_there(self, item: Item) -> bool:
        """Hashed as well: what another version shares with this one may have been damaged since."""
        try:
            return trust.check_file(self.file(item)).st_size == item.size and sha256(self.file(item)) == item.sha256
        except (OSError, DriverError):
            return False

    def _check_room(self, needed: int) -> None:
        status = os.statvfs(self.store.folder)
        free = status.f_bavail * status.f_frsize
        if free < needed + SPARE:
            raise DriverError(
                Code.NO_SPACE,
                f"{self.folder} would take {needed >> 20} MB, {free >> 20} MB are free, and {SPARE >> 20} MB stay so",
                "Free space there, or leave KEEP_USERSPACE out",
            )

    def _make(self) -> None:
        for path in (self.folder, self.folder / FILES):
            path.mkdir(mode=0o755, exist_ok=True)
            trust.check_folder(path)

    def all(self) -> tuple[Listing, ...]:
        """What is kept and whole, by version; raises DriverError (store-unusable)."""
        found = []
        for path in self._listings():
            version, _, platform = path.stem.partition("_")
            with suppress(DriverError):
                found.append(self.find(version, platform))
        return tuple(found)

    def _listings(self) -> list[Path]:
        with self.store.told("read"):
            return [path for path in files.entries(self.folder) if path.suffix == ".json"]

    @property
    def size(self) -> int:
        """Bytes that all of it takes on disk; raises DriverError (store-unusable)."""
        with self.store.told("read"):
            return sum(path.lstat().st_size for path in files.entries(self.folder / FILES))

    def prune(self, versions: Collection[str]) -> tuple[str, ...]:
        """Give up all but these versions, and contents that nothing left names; returns the versions that went.

        Where what is left cannot all be read, no content goes: it may be named there. Raises DriverError
        (store-unusable).
        """
        if not self.folder.is_dir():
            return ()
        gone = []
        with self.store.told("pruned"), self.store.alone():
            for path in self._listings():
                version = path.stem.partition("_")[0]
                if version not in versions and not self._is_newer(path):
                    files.remove(path)
                    gone.append(version)
            named = self._named()
            if named is not None:
                files.remove(*(path for path in files.entries(self.folder / FILES) if path.name not in named))
        return tuple(gone)

    def _named(self) -> set[str] | None:
        """The contents that any listing names; None where one of them cannot be read."""
        try:
            return {digest for path in self._listings() for digest in self._read(path).files}
        except (OSError, ValueError, RecursionError, DriverError):
            return None

    def verify(self, *listings: Listing) -> tuple[str, ...]:
        """Hash all of some versions; what is damaged is named, and removed, so that it is kept anew.

        Raises DriverError (store-unusable).
        """
        damaged: dict[str, str] = {}
        for each in listings:
            for digest, item in each.files.items():
                if digest not in damaged and not self._is_there(item):
                    damaged[digest] = f"{self.file(item)} is not the {item.path} of {each.driver_version}"
        if damaged:
            with self.store.told("written"), self.store.alone():
                files.remove(*(self.folder / FILES / digest for digest in damaged))
        return tuple(damaged.values())


def copy(source: Path, target: Path, item: Item, go_on: Callable[[], None]) -> None:
    """Copy a content, which must be the one listed; raises OSError, DriverError (no-modules), and what `go_on` does."""
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as data, target.open("xb") as copied:
        while piece := data.read(PIECE):
            go_on()
            digest.update(piece)
            copied.write(piece)
    if digest.hexdigest() != item.sha256:
        raise DriverError(
            Code.NO_MODULES, f"{source} is not the {item.path} that was listed (sha256 {digest.hexdigest()[:12]}...)"
        )


def shares(listings: Iterable[Listing]) -> Mapping[str, int]:
    """By version, the bytes that no other version has."""
    known = list(listings)
    return {
        one.driver_version: sum(
            item.size
            for digest, item in one.files.items()
            if all(digest not in other.files for other in known if other is not one)
        )
        for one in known
    }
