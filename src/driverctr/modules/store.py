"""The store of built modules: found by key, published whole or not at all, given up by age (DESIGN section 5).

- entries/<digest of the key>/: modules, key.json, manifest.json, provenance.json, build.log
- stage/: entries in the making, and such as are being given up
- locks/: a file for each key that is being built
- aside/<digest>-<number>/: damaged entries, the last few (aside.py)
- pins.json: what is never given up (pins.py)
- userspace/: the userspace of versions that served, where that is asked for (userspaces.py)
"""

import errno
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from driverctr import files
from driverctr.config import Config
from driverctr.deferred import shutil, tempfile
from driverctr.errors import Code, DriverError, code_of
from driverctr.facts import hostroot, mounttable
from driverctr.hashing import Hashes
from driverctr.log import Log
from driverctr.modules import ModuleSet, entry, locks, pins, trust
from driverctr.modules.entry import BUILD_LOG, Description, Entry, Refused
from driverctr.modules.key import Key
from driverctr.modules.locks import Wait
from driverctr.modules.ondisk import check_digest
from driverctr.paths import Paths
from driverctr.records import frozen, replace

ENTRIES, STAGE, LOCKS, ASIDE = FOLDERS = ("entries", "stage", "locks", "aside")
ALONE = "change"
"""The lock of who adds an entry or takes one away, held for moments only."""
USERSPACE = "userspace"
"""The folder of what is kept beside the modules (userspaces.py); it is there where something is."""
AHEAD = "ahead"
"""The lock of who builds for a kernel that does not run yet: one at a time."""

GOES = "which goes with this container"
"""For messages about a store, or modules, that nothing is mounted under."""

SECOND = 10**9
"""Nanoseconds."""

TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""How rename(2) says that something lies where a folder shall go."""


def locate(paths: Paths, config: Config) -> Path:
    """Where the store lies, which need not be made yet.

    Raises DriverError: no-modules where there is no place for one, store-unusable where it is asked for on the host and
    the host cannot be seen.
    """
    inside = config.store_dir.relative_to("/")
    if config.store_on_host:
        host = hostroot.process_root(paths.root)
        if host is None:
            raise DriverError(
                Code.STORE_UNUSABLE,
                f"STORE_ON_HOST=true, but the host's root, for {config.store_dir} on it, is not visible",
                "Run the container with --pid=host (hostPID), or mount a folder of the host instead",
            )
        return _resolve_as_far(host.path, inside)
    folder = paths.root / inside
    if not folder.is_dir() and not folder.parent.is_dir():
        raise DriverError(
            Code.NO_MODULES,
            f"there is no store: neither {folder} nor the folder it lies in is there",
            f"Mount a folder of the host at {config.store_dir.parent}, and no restart builds again",
        )
    # A link of /proc to the root of a process reads as one to our own.
    return _resolve_as_far(paths.root, inside) if paths.mounts is not None else Path(os.path.realpath(folder))


def outlives_container(paths: Paths, config: Config, folder: Path) -> bool:
    """Whether another container will find the store that lies there."""
    return config.store_on_host or mounttable.is_mounted(paths.root, folder)


def _resolve_as_far(root: Path, inside: Path) -> Path:
    """Follow the links of a path inside a root, as far as it is there; the rest is to be made."""
    for existing in (inside, *inside.parents):
        with suppress(DriverError):
            return hostroot.resolve(root, existing) / inside.relative_to(existing)
    return root / inside


@frozen
class Store:
    """A store that is there or can be made; `max_bytes` is what it may grow to, without bound where it is None."""

    folder: Path
    log: Log
    max_bytes: int | None = None

    @classmethod
    def open(cls, folder: Path, log: Log, max_bytes: int | None = None) -> "Store":
        """The store in a folder, which is made when something is written; raises DriverError (store-unusable)."""
        store = cls(folder, log, max_bytes)
        with store.told("read"):
            for path in (folder, *(folder / name for name in FOLDERS)):
                with suppress(FileNotFoundError):
                    trust.check_folder(path)
        return store

    def find(self, key: Key) -> Entry:
        """The entry that fits a key, by its documents; its files are believed only after `ondisk.verify`.

        Raises DriverError (no-modules) with what is wrong with it, or in what the nearest one differs.
        """
        reasons = []
        for name in key.names():
            if os.path.lexists(folder := self._place(name)):
                found = entry.read(folder)
                if isinstance(found, Entry):
                    return found
                reasons.append(found.reason)
        raise DriverError(Code.NO_MODULES, "; ".join(reasons) or self.describe_miss(key))

    def describe_miss(self, key: Key) -> str:
        """Why nothing fits a key: each field in which the nearest entry differs."""
        entries = sorted(self.entries(), key=lambda found: (len(key.differing(found.key)), -found.used))
        if not entries:
            return f"the store {self.folder} has no {key.wish}; it is empty"
        nearest = entries[0]
        differences = "; ".join(key.differing(nearest.key)) or "nothing"
        return f"the store {self.folder} has no {key.wish}; the nearest, {nearest}, differs in {differences}"

    def entries(self) -> tuple[Entry, ...]:
        """What can be read, the last used first."""
        found = [seen for seen in self.look() if isinstance(seen, Entry)]
        return tuple(sorted(found, key=lambda seen: -seen.used))

    def look(self) -> tuple[Entry | Refused, ...]:
        """Everything that lies among the entries; raises DriverError (store-unusable)."""
        with self.told("read"):
            return tuple(
                entry.read(folder) if entry.is_entry(folder) else Refused(folder, f"{folder} is not named as an entry")
                for folder in files.entries(self.folder / ENTRIES)
            )

    @contextmanager
    def building(self, key: Key, wait: Wait, *, ahead: bool = False) -> Iterator[None]:
        """One builder of a key at a time: the block begins when no other builds it, so look again in it.

        Who builds `ahead` waits before that for every other who does. `wait` lets seconds pass and may raise. Raises
        DriverError (store-unusable, no-space).
        """

        def tell(holder: str) -> None:
            self.log.info(f"store: {key.wish} is being built by {holder}; waiting for it")

        def tell_turn(holder: str) -> None:
            self.log.info(f"store: modules for another kernel are being built by {holder}; waiting for it")

        with ExitStack() as stack:
            with self.told("locked"):
                self._make()
                if ahead:
                    stack.enter_context(locks.held(self.folder / LOCKS / AHEAD, wait, tell_turn))
                stack.enter_context(locks.held(self.folder / LOCKS / key.digest, wait, tell))
            yield

    def publish(self, key: Key, draft: ModuleSet, log_path: Path | None, provenance: Mapping[str, str]) -> Entry:
        """Copy a set into the store, whole or not at all; one that is there already and undamaged stays, and is it.

        Then what was used least recently goes, beyond `max_bytes`. Raises DriverError (store-unusable, no-space).
        """
        with self.stage() as stage:
            copies = {name: replace(module, file=stage / f"{name}.ko") for name, module in draft.modules.items()}
            for name, module in draft.modules.items():
                shutil.copyfile(module.file, copies[name].file)
            if log_path is not None and log_path.is_file():
                shutil.copyfile(log_path, stage / BUILD_LOG)
            entry.write_documents(Description(key, replace(draft, folder=stage, modules=copies), provenance), stage)
            published = self.place(stage, key)
        self.make_room({published.key.digest})
        return published

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A folder to be filled and placed; it is removed at the end, or if we are killed by who stages next.

        Raises DriverError (store-unusable, no-space), also for an OSError of the block.
        """
        with self.told("written"), ExitStack() as stack:
            with self.alone():
                files.remove_abandoned((self.folder / STAGE).iterdir())
                made = Path(tempfile.mkdtemp(dir=self.folder / STAGE))
                stack.callback(shutil.rmtree, made, ignore_errors=True)
                stack.enter_context(files.claimed(made))
            made.chmod(0o755)
            yield made

    def place(self, stage: Path, key: Key) -> Entry:
        """Make a staged folder the entry of a key; raises DriverError (store-unusable), or OSError."""
        for path in stage.iterdir():
            path.chmod(0o644)
        files.sync(*stage.iterdir(), stage)
        with self.alone():
            return self._place_alone(stage, key)

    def _place_alone(self, stage: Path, key: Key) -> Entry:
        target = self._place(key)
        try:
            stage.rename(target)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            if there := self._undamaged(target):
                return there
            stage.rename(target)
        files.sync(target.parent)
        self.touch(key)
        placed = entry.read(target)
        if isinstance(placed, Refused):
            raise DriverError(Code.STORE_UNUSABLE, placed.reason)
        return placed

    def _undamaged(self, folder: Path) -> Entry | None:
        """The entry that lies there; one that is damaged is set aside, and a newer driverctr's left alone."""
        try:
            return check(folder)
        except DriverError as error:
            if error.code is Code.STORE_UNUSABLE:
                raise
            self._move_aside(folder, error.message)
            return None

    def set_aside(self, key: Key, reason: str) -> None:
        """Take a damaged entry away, so that the next build replaces it; where it cannot be moved, that is logged.

        One that is whole stays: somebody replaced it since the damage was seen.
        """
        self._set_aside(self._place(key), reason, self._undamaged)

    def reject(self, key: Key, reason: str) -> None:
        """Take an entry away that is whole and does not serve; where it cannot be moved, that is logged."""
        self._set_aside(self._place(key), reason, lambda folder: self._move_aside(folder, reason))

    def _set_aside(self, folder: Path, reason: str, judge: Callable[[Path], object]) -> None:
        try:
            with self.alone():
                if os.path.lexists(folder):
                    judge(folder)
        except (OSError, DriverError) as error:
            self.log.warning(f"store: {folder} stays ({reason}): {error}", code=code_of(error))

    def verify(self) -> tuple[Refused, ...]:
        """Compare every file of every entry with its manifest; what is wrong is returned, what is damaged set aside.

        Raises DriverError (store-unusable).
        """
        wrong: list[Refused] = []
        for seen in self.look():
            try:
                check(seen.folder)
            except DriverError as error:
                if os.path.lexists(seen.folder):
                    newer = error.code is Code.STORE_UNUSABLE
                    wrong.append(Refused(seen.folder, error.message, newer))
                    if not newer:
                        self._set_aside(seen.folder, error.message, self._undamaged)
        return tuple(wrong)

    def _move_aside(self, folder: Path, reason: str) -> None:
        from driverctr.modules import aside

        target = aside.move(folder, self.folder / ASIDE, reason)
        self.log.warning(f"store: {folder.name[:12]} is set aside in {target}: {reason}")

    def touch(self, key: Key) -> None:
        """An entry is used now: later than every other, whatever the clock says; a store that is read-only forgets."""
        folder = self._place(key)
        with suppress(OSError):
            others = [path.stat().st_mtime_ns for path in files.entries(folder.parent) if path != folder]
            newest = max(others, default=0)
            now = time.time_ns()
            used = now if now > newest else max(newest + SECOND, folder.stat().st_mtime_ns)
            os.utime(folder, ns=(used, used))

    def prune(self, max_bytes: int, spared: Collection[str] = ()) -> tuple[Entry, ...]:
        """Give up what is aside, then what was used least recently, until no more than `max_bytes` are left.

        What is pinned stays, what somebody builds or takes just now, and the digests in `spared`. Returns the entries
        that went. Raises DriverError (store-unusable).
        """
        entries = self.entries()
        size = sum(found.size for found in entries)
        gone: list[Entry] = []
        with self.told("pruned"):
            if size + self.aside_size > max_bytes:
                self.clear_aside()
            for found in reversed(entries):
                if size > max_bytes and found.key.digest not in spared and self._evict(found):
                    size -= found.size
                    gone.append(found)
        return tuple(gone)

    def clear_aside(self) -> int:
        """Give up what was set aside; returns its bytes. Raises DriverError (store-unusable)."""
        from driverctr.modules import aside

        if size := self.aside_size:
            with self.told("pruned"), self.alone():
                aside.clear(self.folder / ASIDE)
        return size

    @property
    def aside_size(self) -> int:
        """Bytes of what was set aside; raises DriverError (store-unusable)."""
        from driverctr.modules import aside

        with self.told("read"):
            return aside.size(self.folder / ASIDE)

    def _evict(self, found: Entry) -> bool:
        """At once for who looks for it; who reads its files can read on. Raises OSError, DriverError (store-unusable).

        False where it stays: pinned, perhaps just now, or its key's lock is held.
        """
        digest = found.key.digest
        with self.alone():
            if digest in pins.read(self.folder).reasons() or locks.is_held(self.folder / LOCKS / digest):
                return False
            away = self.folder / STAGE / f"{digest}-{time.time_ns()}"
            with suppress(FileNotFoundError):
                found.folder.rename(away)
            shutil.rmtree(away, ignore_errors=True)
        return True

    def has(self, key: Key) -> bool:
        """Whether an entry is there: one pinned before we ask stays. Raises DriverError (store-unusable)."""
        with self.told("read"), self.alone():
            return self._place(key).is_dir()

    def make_room(self, published: Collection[str]) -> None:
        """Give up what was used least recently beyond `max_bytes`, not what was just published; trouble is logged."""
        if self.max_bytes is None:
            return
        try:
            for gone in self.prune(self.max_bytes, published):
                self.log.info(f"store: {gone}, {gone.size >> 20} MB, was used least recently and is given up")
        except DriverError as error:
            self.log.warning(f"store: nothing is given up: {error}", code=error.code.value)

    def _place(self, key: Key) -> Path:
        return self.folder / ENTRIES / key.digest

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else adds an entry, takes one away, or sets up a stage; raises OSError, DriverError."""
        self._make()
        with locks.held_soon(self.folder / LOCKS / ALONE):
            yield

    def _make(self) -> None:
        """Make what is missing of the folders, and look at the others once more; raises OSError, DriverError."""
        for path in (*reversed(self.folder.parents), self.folder, *(self.folder / name for name in FOLDERS)):
            with suppress(FileExistsError):
                path.mkdir(mode=0o755)
        for path in (self.folder, *(self.folder / name for name in FOLDERS)):
            trust.check_folder(path)

    @contextmanager
    def told(self, act: str) -> Iterator[None]:
        """Name the store in an error of the system's."""
        try:
            yield
        except OSError as error:
            full = error.errno in files.FULL
            raise DriverError(
                Code.NO_SPACE if full else Code.STORE_UNUSABLE,
                f"the store {self.folder} cannot be {act}: {error}",
                "Free space there (`driverctr store prune`), or use a larger volume"
                if full
                else "Give STORE_DIR a writable folder of root's on a filesystem with locks and renames",
            ) from error


def check(folder: Path) -> Entry:
    """An entry with every file compared with its manifest.

    Raises DriverError: no-modules with the first thing that is wrong with it, store-unusable where a newer driverctr
    wrote it.
    """
    found = entry.read(folder)
    if isinstance(found, Refused):
        code = Code.STORE_UNUSABLE if found.newer else Code.NO_MODULES
        raise DriverError(code, found.reason, "Use that newer driverctr, or another STORE_DIR" if found.newer else "")
    hashes = Hashes()
    for module in found.module_set.modules.values():
        check_digest(module, hashes)
    return found
