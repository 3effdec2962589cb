"""GSP firmware where the kernel asks for it: at the first open of a device, in the host's mount namespace."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from driverctr import files
from driverctr.deferred import filecmp
from driverctr.errors import Code, DriverError, code_of
from driverctr.facts import hostroot, mounttable
from driverctr.log import Log
from driverctr.paths import Paths
from driverctr.records import mutable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from driverctr.mounts.syscalls import Syscalls

SEARCH_PATH = "/run/nvidia/driver/lib/firmware"
"""As the host sees our image's own firmware once the driver root is published, whatever is mounted over ours."""

PARAMETER = "module/firmware_class/parameters/path"
FOLDER = "lib/firmware"
PATTERN = "gsp_*.bin"
PEEK = "mnt/driverctr/image"
RECORD = "firmware.json"
BLANK = "\0"
"""An empty write never reaches the kernel, and a newline would be taken as a path: a lone NUL empties the string."""


@mutable
class Record:
    """What cannot be observed: whether we set the search path, and which files on others' folders are ours."""

    paths: Paths
    path_set: bool
    placed: set[str]

    def as_dict(self) -> dict[str, Any]:
        """As `undo` takes it."""
        return {"path_set": self.path_set, "placed": sorted(self.placed)}

    def write(self) -> None:
        """Keep it for the next start, should this one be killed; raises DriverError (node-file)."""
        file = self.paths.own_run / RECORD
        try:
            files.write_atomic(file, json.dumps(self.as_dict()) + "\n")
        except OSError as error:
            raise DriverError(
                Code.NO_SPACE if error.errno == errno.ENOSPC else Code.NODE_FILE,
                f"{file} could not be written: {error.strerror}",
                f"Make {file.parent} writable",
            ) from error


def place(
    paths: Paths,
    driver_version: str,
    *,
    log: Log,
    wanted: bool = True,
    source: Path | None = None,
    calls: Syscalls | None = None,
) -> dict[str, Any]:
    """Let the kernel find the driver's firmware; returns what `undo` takes.

    The search path is set where it is blank and kept where somebody else set it: then the firmware is also put where
    that points. Where a mount hides our image's firmware, it is copied onto the mount. With `wanted` false
    (NVreg_EnableGpuFirmware=0) nothing is done. `source` is the folder of the version where that is not the image's own
    (the driver root shows it there all the same). May be repeated. Raises DriverError (firmware-failed).
    """
    from driverctr.mounts.syscalls import Syscalls

    if not wanted:
        log.info("GSP firmware is switched off by NVreg_EnableGpuFirmware=0: search path left as it is")
        return {}
    earlier = recall(paths)
    path_set, search = _settle_path(paths, bool(earlier.get("path_set")), log)
    record = Record(paths, path_set, set(earlier.get("placed", ())))
    try:
        record.write()
        with _image_firmware(paths, driver_version, calls or Syscalls()) as (own, hidden):
            _place_files(record, search, driver_version, source or own, hidden, log)
    except DriverError:
        undo(paths, record.as_dict())
        raise
    return record.as_dict()


def _place_files(record: Record, search: str, version: str, source: Path, hidden: bool, log: Log) -> None:
    if not any(source.glob(PATTERN)):
        log.warning(f"the image holds no GSP firmware for {version}: a GPU that needs it will not start")
    if hidden:
        _onto_the_mount(record, source, record.paths.root / FOLDER / "nvidia" / version, log)
    if search != SEARCH_PATH:
        _where_it_points(record, source, search, version, log)


def undo(paths: Paths, data: Mapping[str, Any]) -> None:
    """Blank the search path if we set it and it is still ours, and remove the files we put on others' folders.

    Raises DriverError (firmware-failed).
    """
    parameter = paths.sys_modules.parent / PARAMETER
    try:
        if data.get("path_set") and files.read_text(parameter) == SEARCH_PATH:
            files.write_kernel(parameter, BLANK)
        for name in _on_mounts(paths, data.get("placed", ())):
            Path(name).unlink(missing_ok=True)
            _remove_if_empty(Path(name).parent)
        files.remove(paths.own_run / RECORD)
    except OSError as error:
        raise DriverError(
            Code.FIRMWARE_FAILED, f"the firmware settings could not be taken back: {error.strerror}: {error.filename}"
        ) from error


def _on_mounts(paths: Paths, placed: Sequence[str]) -> list[str]:
    """Those that still lie on a mount: where that of an earlier start is gone, the name is our image's own file."""
    mounts = mounttable.read(paths.root) if placed else ()
    own = mounttable.visible(mounts, paths.root)
    return [
        name
        for name in placed
        # Not resolved below /proc: process 1's root reads as a link to our own.
        if Path(name).is_relative_to(paths.proc) or mounttable.visible(mounts, Path(name).resolve()) != own
    ]


def _settle_path(paths: Paths, set_earlier: bool, log: Log) -> tuple[bool, str]:
    """Whether the search path is of our making, and what it is."""
    parameter = paths.sys_modules.parent / PARAMETER
    current = files.read_text(parameter)
    if current == SEARCH_PATH:
        return set_earlier, current
    if current:
        log.warning(f"the firmware search path is {current}, set by somebody else: kept")
        return False, current
    # Written down before it is done: a start killed in between must not leave a path that nobody takes back.
    Record(paths, True, set(recall(paths).get("placed", ()))).write()
    try:
        files.write_kernel(parameter, SEARCH_PATH)
    except OSError as error:
        raise DriverError(
            Code.FIRMWARE_FAILED,
            f"the firmware search path {parameter} could not be set: {error.strerror}",
            f"Run the container privileged, or mount {parameter} read-write into it",
        ) from error
    return True, SEARCH_PATH


def read_path(paths: Paths) -> str:
    """The kernel's search path for firmware; empty where it is blank."""
    return files.read_text(paths.sys_modules.parent / PARAMETER) or ""


def restore_path(paths: Paths, search: str) -> None:
    """Set a search path again that was blanked; raises DriverError (firmware-failed)."""
    try:
        files.write_kernel(paths.sys_modules.parent / PARAMETER, search)
    except OSError as error:
        raise DriverError(
            Code.FIRMWARE_FAILED, f"the firmware search path could not be set to {search} again: {error.strerror}"
        ) from error


@contextmanager
def _image_firmware(paths: Paths, version: str, kernel: Syscalls) -> Iterator[tuple[Path, bool]]:
    """The image's own folder for the version, and whether a mount hides it; below mounts we look through a bind."""
    from driverctr.mounts import staging
    from driverctr.mounts.syscalls import MS_BIND, MS_PRIVATE

    folder = f"{FOLDER}/nvidia/{version}"
    mounts = mounttable.read(paths.root)
    own = mounttable.visible(mounts, paths.root)
    if mounttable.visible(mounts, (paths.root / folder).resolve()) == own:
        yield paths.root / folder, False
        return
    peek = paths.root / PEEK
    try:
        staging.clear(peek, kernel)
        peek.mkdir(parents=True, exist_ok=True)
        kernel.mount(paths.root, peek, MS_BIND)
    except OSError as error:
        raise DriverError(
            Code.FIRMWARE_FAILED,
            f"the image's firmware, hidden by a mount on /{FOLDER}, could not be reached: {error.strerror}",
            "Run the container privileged" if error.errno == errno.EPERM else "",
        ) from error
    try:
        kernel.mount(None, peek, MS_PRIVATE)
        yield hostroot.resolve(peek, Path("/") / FOLDER) / "nvidia" / version, True
    finally:
        staging.clear(peek, kernel)


def _onto_the_mount(record: Record, source: Path, folder: Path, log: Log) -> None:
    """A mount that cannot be written is no failure: the kernel reads the image's own through the driver root."""
    try:
        _copy_missing(record, source, folder)
    except OSError as error:
        log.warning(
            f"the GSP firmware could not be copied onto the mount at {folder}: {error.strerror}; "
            "the kernel reads it through the driver root",
            code=code_of(error),
        )


def _where_it_points(record: Record, source: Path, search: str, version: str, log: Log) -> None:
    """Put the firmware where somebody else's search path points, on the host."""
    host = hostroot.process_root(record.paths.root)
    if host is None:
        log.warning(f"whether {search} holds the GSP firmware cannot be seen without the host's PID namespace")
        return
    try:
        base = hostroot.resolve(host.path, Path(search))
        _copy_missing(record, source, base / "nvidia" / version)
    except (OSError, DriverError) as error:
        raise DriverError(
            Code.FIRMWARE_FAILED,
            f"the firmware search path is {search}, but the host's folder of that name cannot take the GSP firmware: "
            f"{error.strerror if isinstance(error, OSError) else error.message}",
            f"Make it writable, copy nvidia/{version}/{PATTERN} there, or blank /sys/{PARAMETER}",
        ) from error


def _copy_missing(record: Record, source: Path, folder: Path) -> None:
    """Copy what is missing or different, each file whole or not at all, and remembered before. Raises OSError."""
    for file in sorted(source.glob(PATTERN)):
        target = folder / file.name
        if target.is_file() and filecmp.cmp(file, target, shallow=False):
            continue
        files.sweep(folder)
        record.placed.add(str(target))
        record.write()
        try:
            files.copy_atomic(file, target)
        except OSError:
            if not target.exists():
                record.placed.discard(str(target))
                record.write()
            raise


def recall(paths: Paths) -> Mapping[str, Any]:
    """What an earlier start, perhaps killed, did: nothing on the node tells who set the path."""
    text = files.read_text(paths.own_run / RECORD)
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST):
            raise
