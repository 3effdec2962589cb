"""What a program installed into a root: found by looking at the root before and after, copied to a folder.

nvidia-installer has an option for the place of some files and none for that of others, so it cannot be asked to install
into a folder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from driver_files import copy

# Where a driver's files can lie; links among these lead to others of them.
PLACES = ("bin", "sbin", "lib", "lib64", "lib32", "etc", "opt", "usr")
# Changed by whatever runs, or of use only to the installer itself, people with a terminal, an X server or systemd.
LEFT_OUT = (
    "etc/ld.so.cache",
    "etc/X11",
    "etc/systemd",
    "usr/bin/nvidia-installer",
    "usr/bin/nvidia-uninstall",
    "usr/bin/nvidia-settings",
    "usr/bin/nvidia-xconfig",
    "usr/lib/modules",
    "usr/lib/systemd",
    "usr/share/applications",
    "usr/share/doc/NVIDIA_GLX-1.0/html",
    "usr/share/doc/NVIDIA_GLX-1.0/samples",
    "usr/share/man",
    "usr/share/pixmaps",
    "usr/src",
    "usr/tmp",
)
COMPILED = "__pycache__"
# Of a file: inode, size, mode, time of its last change of any kind (nanoseconds).
Stamp = tuple[int, int, int, int]


def look(root: Path, apart: Collection[Path] = ()) -> dict[str, Stamp]:
    """Return what lies in a root, by path below it; folders `apart` are not looked at."""
    skipped = {path.resolve() for path in apart} | {root / name for name in LEFT_OUT}
    folders = [root / place for place in PLACES if not (root / place).is_symlink() and (root / place).is_dir()]
    found = [path for folder in folders for path in _walk(folder, skipped)]
    return {path.relative_to(root).as_posix(): _stamp(path) for path in found}


def collect(root: Path, before: Mapping[str, Stamp], to: Path, apart: Collection[Path] = ()) -> None:
    """Copy to a folder what is new or changed since `before`."""
    for name, stamp in look(root, apart).items():
        if before.get(name) != stamp:
            copy(root / name, to / name)


def _walk(folder: Path, skipped: Collection[Path]) -> Iterator[Path]:
    """Yield all files and links, following none."""
    for path in folder.iterdir():
        if path in skipped or path.name == COMPILED:
            continue
        if path.is_symlink() or not path.is_dir():
            yield path
        else:
            yield from _walk(path, skipped)


def _stamp(path: Path) -> Stamp:
    seen = path.lstat()
    return seen.st_ino, seen.st_size, seen.st_mode, seen.st_ctime_ns
