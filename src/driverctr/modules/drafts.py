"""New modules on their way: made or fetched in scratch, then brought to where they stay, whole or not at all."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from driverctr import files
from driverctr.deferred import shutil, tempfile
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import ModuleSet, write_manifest
from driverctr.modules.entry import BUILD_LOG, Entry
from driverctr.modules.key import Key
from driverctr.modules.loaded import Build
from driverctr.modules.locks import Wait
from driverctr.modules.ondisk import check_complete, set_folder
from driverctr.modules.provenance import Doubt
from driverctr.modules.store import Store, check
from driverctr.records import frozen, replace

DEFAULT_SCRATCH = Path("/var/tmp")
SCRATCH = "driverctr-build-"
ROOM_NEEDED = "Give the container's /var/tmp 1 GB to spare"


@frozen
class Draft:
    """A set as it lies in scratch, what it was made with and from, and the log of its build if it was built here.

    `key` is the one it is signed for, where it was fetched.
    """

    module_set: ModuleSet
    provenance: Mapping[str, str]
    log_path: Path | None = None
    key: Key | None = None


def keep(
    make: Callable[[], AbstractContextManager[Draft]],
    key: Key,
    store: Store | None,
    folder: Path,
    wait: Wait,
    log: Log,
    names: Sequence[str] = (),
    doubt: Doubt | None = None,
) -> Build:
    """Make a set once for its key: in the store, unless another process does or has done so, which is waited for.

    `names` are the modules it must have. An entry that was found in `doubt` gives way to what is made now.

    Without a store, or where it cannot be used, which is told in the log, the set is kept below `folder`. `wait` lets
    seconds pass and may raise. Raises DriverError as `make` does, and no-space or build-failed where nothing can be
    written.
    """
    with ExitStack() as stack:
        if store is not None:
            try:
                stack.enter_context(store.building(key, wait))
            except DriverError as error:
                log.warning(f"store: {error}", code=error.code.value)
                store = None
        found = find_whole(store, key, names=names) if store is not None else None
        if found is not None and not (doubt and found.module_set == doubt.entry.module_set):
            return Build(found.module_set, found.key)
        draft = stack.enter_context(make())
        check_complete(draft.module_set, names)
        wanted = draft.key or key
        if store is not None:
            try:
                placed = put(store, wanted, draft, doubt)
                return Build(placed.module_set, placed.key)
            except DriverError as error:
                log.warning(f"store: the new modules are not kept in it: {error}", code=error.code.value)
        return Build(publish(draft, set_folder(folder, key.wish)), wanted, draft.provenance)


def put(store: Store, key: Key, draft: Draft, doubt: Doubt | None) -> Entry:
    """Publish a draft under a key; an entry that lies there in doubt gives way.

    Raises DriverError as Store.publish does, and store-unusable where that entry does not go.
    """
    gives_way = doubt is not None and doubt.entry.key == key
    if doubt and gives_way:
        store.reject(key, doubt.reason)
    placed = store.publish(key, draft.module_set, draft.log_path, draft.provenance)
    if gives_way and not Build(draft.module_set).is_same(placed.module_set):
        raise DriverError(
            Code.STORE_UNUSABLE,
            f"{placed} could not be moved, and what was made in its place is not published",
            f"Give {store.folder} a filesystem with renames, or remove {placed.folder}",
        )
    return placed


def find_whole(
    store: Store, key: Key, look_up: Callable[[Store, Key], Entry] = Store.find, names: Sequence[str] = ()
) -> Entry | None:
    """The entry of a key, looked at file by file; what is damaged, or lacks one of `names`, is set aside."""
    try:
        found = look_up(store, key)
    except DriverError as error:
        store.log.debug(f"store: {error.message}", code=error.code.value)
        return None
    try:
        check_complete(found.module_set, names)
    except DriverError as error:
        store.reject(found.key, error.message)
        return None
    try:
        return check(found.folder)
    except DriverError as error:
        store.set_aside(found.key, error.message)
        return None


@contextmanager
def told_if_full(folder: Path) -> Iterator[None]:
    """A full disk meets us in many places, our own writes and those of cp, make and the compiler: one error for all.

    Raises DriverError (no-space, node-file, and what the block raises).
    """
    full = os.strerror(errno.ENOSPC)
    try:
        yield
    except OSError as error:
        code = Code.NO_SPACE if error.errno == errno.ENOSPC else Code.NODE_FILE
        raise DriverError(code, f"the build's folder {folder} cannot be used: {error}", ROOM_NEEDED) from error
    except DriverError as error:
        if error.code is Code.NO_SPACE or full not in error.message:
            raise
        raise DriverError(Code.NO_SPACE, f"no space left for the build in {folder}: {error}", ROOM_NEEDED) from error


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder for one build, removed whatever happens; that of a build that was killed goes too. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    files.remove_abandoned(path for path in parent.glob(f"{SCRATCH}*") if path.is_dir())
    with ExitStack() as stack:
        folder = claim_folder(parent, SCRATCH, stack)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def claim_folder(parent: Path, prefix: str, stack: ExitStack) -> Path:
    """A new folder of a name of its own, claimed for as long as the stack lasts; raises OSError.

    Another process that looks for abandoned ones may take it away before it is claimed.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError), ExitStack() as claim:
            claim.enter_context(files.claimed(folder))
            if folder.is_dir():
                stack.push(claim.pop_all())
                return folder


def publish(draft: Draft, target: Path) -> ModuleSet:
    """Bring a set to its place on disk: staged beside it, synced, renamed; a former set there is replaced.

    Raises DriverError (build-failed, no-space) where the folder cannot be written; then the stage is removed.
    """
    made, prefix = draft.module_set, f".{target.name}.stage-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.remove_abandoned(target.parent.glob(f"{prefix}*"))
        with ExitStack() as stack:
            stage = claim_folder(target.parent, prefix, stack)
            stack.callback(shutil.rmtree, stage, ignore_errors=True)
            stage.chmod(0o755)
            published = {name: replace(module, file=stage / f"{name}.ko") for name, module in made.modules.items()}
            for name, module in made.modules.items():
                shutil.move(module.file, published[name].file)
            if draft.log_path is not None:
                shutil.move(draft.log_path, stage / BUILD_LOG)
            write_manifest(replace(made, folder=stage, modules=published))
            files.sync(*stage.iterdir(), stage)
            if target.exists():
                shutil.rmtree(target)
            stage.rename(target)
        files.sync(target.parent)
    except OSError as error:
        raise DriverError(
            Code.NO_SPACE if error.errno == errno.ENOSPC else Code.BUILD_FAILED,
            f"the modules cannot be stored in {target}: {error.strerror or error}",
            "Give it a writable folder with 150 MB to spare (--output)",
        ) from error
    final = {name: replace(module, file=target / f"{name}.ko") for name, module in made.modules.items()}
    return replace(made, folder=target, modules=final)
