"""A small apt repository, made here, signed with a key made here, and served by a server that counts."""

from __future__ import annotations

import hashlib
import http.server
import lzma
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from harness import proc

# Release files name moments so (RFC 5322, in UTC).
DATE = "%a, %d %b %Y %H:%M:%S UTC"
LIMIT_S = 120
PACK_LIMIT_S = 600


@dataclass(frozen=True)
class Key:
    """A key that signs: the folder of gpg's that has it, and the file with its public part."""

    home: Path
    public: Path

    def sign(self, file: Path) -> None:
        """Write InRelease and Release.gpg beside a Release."""
        gpg: list[str | Path] = ["gpg", "--homedir", self.home, "--batch", "--yes", "--armor"]
        proc.run([*gpg, "--output", file.with_name("InRelease"), "--clear-sign", file], timeout=LIMIT_S)
        proc.run([*gpg, "--output", file.with_name("Release.gpg"), "--detach-sign", file], timeout=LIMIT_S)


def make_key(folder: Path, name: str) -> Key:
    """Make a key without a passphrase; its gpg-agent ends with the folder."""
    proc.need("gpg", "gnupg")
    home, public = folder / f"{name}.gnupg", folder / f"{name}.asc"
    home.mkdir(mode=0o700, parents=True)
    gpg: list[str | Path] = ["gpg", "--homedir", home, "--batch"]
    identity = f"{name} <{name}@driverctr.example>"
    proc.run([*gpg, "--passphrase", "", "--quick-gen-key", identity, "ed25519", "sign", "never"], timeout=LIMIT_S)
    public.write_text(proc.run([*gpg, "--armor", "--export"], timeout=LIMIT_S))
    return Key(home, public)


def make_package(
    folder: Path, name: str, version: str, files: Mapping[str, str], depends: str = "", architecture: str = "amd64"
) -> Path:
    """Make a .deb with these files, below its root; a text that begins with "-> " makes a link."""
    tree = folder / f".{name}"
    for path, text in files.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            file.symlink_to(text.removeprefix("-> "))
        else:
            file.write_text(text)
            file.chmod(0o755 if text.startswith("#!") else 0o644)
    made = pack(tree, folder, name, version, depends, architecture=architecture)
    shutil.rmtree(tree)
    return made


# On a busy machine the headers of a real kernel would take minutes.
LEAST = ("-Zxz", "-z1")
# For what is unpacked once, and on the same machine.
NOT_AT_ALL = ("-Znone",)


def pack(
    tree: Path,
    to: Path,
    name: str,
    version: str,
    depends: str = "",
    *,
    architecture: str = "amd64",
    compression: Sequence[str] = LEAST,
) -> Path:
    """Make a .deb of a tree, which gets a control file, and return it; it lies in the folder `to`."""
    fields = {
        "Package": name,
        "Version": version,
        "Architecture": architecture,
        "Maintainer": "driverctr <driverctr@driverctr.example>",
        "Depends": depends,
        "Description": "made by a test",
    }
    control = tree / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text("".join(f"{field}: {value}\n" for field, value in fields.items() if value))
    made = to / f"{name}_{version}_{architecture}.deb"
    proc.run(["dpkg-deb", "--root-owner-group", *compression, "--build", tree, made], timeout=PACK_LIMIT_S)
    return made


def publish(
    folder: Path,
    packages: Sequence[Path],
    key: Key | None,
    suite: str = "stable",
    *,
    valid_for: float | None = None,
    others: str = "",
) -> None:
    """Make a folder a repository with one suite and the component main; without a key it is not signed.

    `valid_for` is how many days from now its index is good for; negative ones have passed. `others` are stanzas of the
    index for packages that are not there.
    """
    pool, dist = folder / "pool", folder / "dists" / suite
    index = dist / "main/binary-amd64"
    pool.mkdir(parents=True, exist_ok=True)
    index.mkdir(parents=True, exist_ok=True)
    for package in packages:
        shutil.copy2(package, pool)
    listed = "\n".join(_stanza(file, folder) for file in sorted(pool.glob("*.deb")))
    text = "\n".join(part for part in (others, listed) if part).encode()
    (index / "Packages").write_bytes(text)
    (index / "Packages.xz").write_bytes(lzma.compress(text))
    now = datetime.now(UTC)
    until = [f"Valid-Until: {now + timedelta(days=valid_for):{DATE}}"] if valid_for is not None else []
    made = now - timedelta(days=1) + min(timedelta(), timedelta(days=valid_for or 0))
    release = [
        f"Suite: {suite}",
        f"Codename: {suite}",
        f"Date: {made:{DATE}}",
        *until,
        "Architectures: amd64",
        "Components: main",
        "Acquire-By-Hash: no",
        "SHA256:",
        *(f" {_sha256(file)} {file.stat().st_size} {file.relative_to(dist)}" for file in sorted(index.iterdir())),
    ]
    (dist / "Release").write_text("\n".join(release) + "\n")
    if key is not None:
        key.sign(dist / "Release")


def _stanza(file: Path, folder: Path) -> str:
    control = proc.run(["dpkg-deb", "--field", file], timeout=LIMIT_S)
    place = f"Filename: {file.relative_to(folder)}\nSize: {file.stat().st_size}\nSHA256: {_sha256(file)}\n"
    return control + place


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass
class Served:
    """What a server offers, and the bytes that each path has cost so far, with the heads of its answers."""

    address: str
    fetched: dict[str, int] = field(default_factory=dict)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve a folder by HTTP on this machine's loopback, for the length of the block."""
    served = Served("")

    class Handler(http.server.SimpleHTTPRequestHandler):
        """Counts what it sends."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer, and note what went out."""
            plain: Any = self.wfile
            count: Any = _Counted(plain)
            self.wfile = count
            try:
                super().do_GET()
            finally:
                self.wfile = plain
                served.fetched[self.path] = served.fetched.get(self.path, 0) + count.bytes

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


class _Counted:
    """A stream that counts what is written to it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return int(self.stream.write(data))

    def flush(self) -> None:
        self.stream.flush()

    @property
    def closed(self) -> bool:
        return bool(self.stream.closed)
