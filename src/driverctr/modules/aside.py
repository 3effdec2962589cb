"""Damaged entries of the store, kept for who looks into what damaged them: the last few, each with the reason."""

import shutil
from contextlib import suppress
from pathlib import Path

from driverctr import files

REASON = "reason"
"""The file in a folder set aside that says why."""

KEPT = 3
"""So many stay."""


def move(folder: Path, aside: Path, reason: str) -> Path:
    """Set a folder aside, and give up what was set aside before the last few; returns its new place. Raises OSError."""
    former = sorted(files.entries(aside), key=_number)
    target = aside / f"{folder.name}-{_number(former[-1]) + 1 if former else 1}"
    folder.rename(target)
    if not target.is_symlink():
        with suppress(OSError):
            (target / REASON).write_text(f"{reason}\n")
    for path in former[: 1 - KEPT]:
        _remove(path)
    return target


def size(aside: Path) -> int:
    """Bytes of all that was set aside; what vanishes meanwhile counts for nothing. Raises OSError."""
    total = 0
    for path in files.entries(aside):
        for file in (path, *(files.entries(path) if not path.is_symlink() else ())):
            with suppress(FileNotFoundError):
                total += file.lstat().st_size if not file.is_dir() else 0
    return total


def clear(aside: Path) -> None:
    """Give all of it up; raises OSError."""
    for path in files.entries(aside):
        _remove(path)


def _number(path: Path) -> int:
    """The number at the end of the name of what was set aside; the greatest is the newest."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
