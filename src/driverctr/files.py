"""Files that are either whole or not there."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

PIECE = 4 << 20
"""Bytes."""


def write_atomic(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write to a temporary file in the same folder, fsync, rename.

    Raises OSError; then the former file is untouched and nothing is left beside it.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def remove(*paths: Path) -> None:
    """Remove files that may be gone already; raises OSError for any other reason."""
    for path in paths:
        path.unlink(missing_ok=True)


def read_text(path: Path) -> str | None:
    """The text of a small file without the white space around it, or None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def write_kernel(path: Path, value: str) -> None:
    """Write a /sys or /proc file in place; raises OSError."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; raises OSError.

    In large pieces: between two of them the interpreter's lock is asked for, which other threads may hold for long.
    """
    digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def tree_digest(root: Path) -> str:
    """A SHA-256 over names, kinds and contents of a folder, the same wherever and whenever it was unpacked."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            total.update(f"l {name} {path.readlink()}\n".encode())
        elif path.is_file():
            total.update(f"f {name} {sha256(path)}\n".encode())
    return total.hexdigest()


def newest(paths: Iterable[Path]) -> Path | None:
    """The path changed last, or None; a path that vanishes meanwhile is passed over."""
    times: list[tuple[float, Path]] = []
    for path in paths:
        with contextlib.suppress(OSError):
            times.append((path.stat().st_mtime, path))
    return max(times)[1] if times else None
