"""What the store believes: files and folders of root's own that nobody else can write, and no links."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from driverctr.errors import Code, DriverError

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
DOCUMENT_LIMIT = 8 << 20
"""Bytes that a document of the store may have; the largest, a manifest, has some ten thousand."""


def check_folder(path: Path) -> os.stat_result:
    """Its state, if it is a folder to be believed; raises DriverError (store-unusable), or OSError."""
    return _check(path, stat.S_ISDIR, "a folder")


def check_file(path: Path) -> os.stat_result:
    """Its state, if it is a file to be believed; raises DriverError (store-unusable), or OSError."""
    return _check(path, stat.S_ISREG, "a regular file")


def _check(path: Path, is_kind: Callable[[int], bool], kind: str) -> os.stat_result:
    status = path.lstat()
    if not is_kind(status.st_mode):
        raise _refusal(path, "is a symbolic link" if stat.S_ISLNK(status.st_mode) else f"is not {kind}")
    _check_owner(path, status)
    return status


def read(path: Path) -> bytes:
    """A document, if it is to be believed; raises DriverError (store-unusable), or OSError."""
    check_file(path)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _check_owner(path, os.fstat(file.fileno()))
        content = file.read(DOCUMENT_LIMIT + 1)
    if len(content) > DOCUMENT_LIMIT:
        raise _refusal(path, f"has more than {DOCUMENT_LIMIT >> 20} MB")
    return content


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise _refusal(path, f"belongs to user {status.st_uid}, not to user {os.geteuid()}, as whom we run")
    if status.st_mode & WRITABLE_BY_OTHERS:
        raise _refusal(path, f"can be written by others than its owner (mode {stat.S_IMODE(status.st_mode):04o})")


def _refusal(path: Path, reason: str) -> DriverError:
    return DriverError(
        Code.STORE_UNUSABLE,
        f"{path} {reason}",
        f"Modules are code for the kernel: remove it, or give it to root alone (chown root {path}; chmod go-w {path}) "
        "if you know who wrote what it holds",
    )
