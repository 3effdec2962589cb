"""A cache of costly things outside the repository: keyed by their inputs, published whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# A part of a key: a Path stands for the content of that file or folder.
KeyPart = str | int | float | bool | None | bytes | Path


def root() -> Path:
    """Return the cache folder, created if need be: $DRIVERCTR_CACHE, else driverctr under the user's cache."""
    chosen = os.environ.get("DRIVERCTR_CACHE")
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(chosen) if chosen else users / "driverctr"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the named lock of the cache; other processes wait for it."""
    folder = root() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def entry(kind: str, key_parts: Iterable[KeyPart], build: Callable[[Path], None]) -> Path:
    """Return the entry for this key; if there is none, `build` fills a fresh folder, which is then published.

    `build` gets an empty folder beside the final place. One process builds, others wait for it. A build that
    raises or is killed publishes nothing; what it left is removed by the next one.
    """
    digest = key(key_parts)
    final = root() / kind / digest
    if final.is_dir():
        os.utime(final)
        return final
    final.parent.mkdir(exist_ok=True)
    with lock(f"{kind}-{digest}"):
        if final.is_dir():
            return final
        unfinished = final.with_name(f".{digest}.unfinished")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir()
        build(unfinished)
        unfinished.rename(final)
    return final


def key(parts: Iterable[KeyPart]) -> str:
    """Return the digest of a key: the same parts in the same order give the same 16 hex digits."""
    total = hashlib.sha256()
    for part in parts:
        one = _digest_of(part)
        total.update(len(one).to_bytes(4, "big") + one)
    return total.hexdigest()[:16]


# Entries kept of a kind that takes gigabytes, and is made anew whenever a source changes.
LARGE_KEPT = 3


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest entries of a folder; what a running program has open stays usable to it."""
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=_age, reverse=True)
    for old in entries[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def listing(tree: Path) -> bytes:
    """Return a digest of a folder's names, modes, sizes and times: quick where reading it all is not."""
    total = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        stat = path.lstat()
        total.update(f"{path.relative_to(tree)}\0{stat.st_mode}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return total.digest()


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _digest_of(part: KeyPart) -> bytes:
    if isinstance(part, Path):
        return _content(part)
    if isinstance(part, bytes):
        return b"b" + part
    return f"{type(part).__name__}:{part}".encode()


def _content(path: Path) -> bytes:
    """Digest a file, or a folder with the relative name, mode and content of each file in it."""
    total = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if not p.is_dir())
    if not files:
        raise FileNotFoundError(f"nothing to digest in {path}")
    for file in files:
        name = "" if file == path else str(file.relative_to(path))
        if "__pycache__" in name:
            continue
        body = str(file.readlink()).encode() if file.is_symlink() else file.read_bytes()
        executable = bool(file.lstat().st_mode & 0o100)
        total.update(f"{name}\0{executable}\0{len(body)}\0".encode() + body)
    return total.digest()
