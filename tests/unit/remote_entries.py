"""An entry of modules, its key pair and a remote folder of it, for tests."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from driverctr.errors import DriverError
from driverctr.log import Log
from driverctr.modules import ModuleSet, describe, signing
from driverctr.modules.bounds import Limits
from driverctr.modules.key import Key
from driverctr.modules.push import Folder, push
from driverctr.modules.remote import Remote
from tests.unit.module_files import module_bytes
from tests.unit.remote_server import Server, served

RELEASE = "6.1.0-56-amd64"
KEY = Key("535.309.01", "open", "11" * 32, "x86_64", RELEASE, "#1 SMP Debian 6.1.192-2", "ab" * 20)
QUICK = Limits(connect=1, silence=1, documents=3, files=4, attempts=3, first_pause=0.05)
"""Bounds for servers that do nothing but keep us waiting."""
PATIENT = Limits(connect=20, silence=20, documents=60, files=60, attempts=3, first_pause=0.05)
"""Bounds for servers that answer, on a machine that does other work."""


def make_set(folder: Path, payload: bytes = b"") -> ModuleSet:
    """Two modules for the key above; `payload` lies at the end of each."""
    files = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("nvidia", "nvidia-uvm"):
        fields = {"version": KEY.driver_version, "vermagic": f"{RELEASE} SMP preempt mod_unload "}
        (folder / f"{name}.ko").write_bytes(module_bytes(fields) + payload)
        files[name] = describe(folder / f"{name}.ko")
    return ModuleSet(folder, RELEASE, KEY.kernel_version, KEY.driver_version, KEY.module_type, files)


def make_private(folder: Path) -> Ed25519PrivateKey:
    """A key pair in a folder."""
    signing.make_pair(folder)
    return signing.read_private(folder / signing.PRIVATE_FILE)


class Pushed:
    """A folder with one entry in it, as `store push` leaves it."""

    def __init__(self, folder: Path, log: Log, payload: bytes = b"") -> None:
        """Build, sign, push."""
        self.folder = folder / "remote"
        self.keys = folder / "keys"
        self.private = make_private(self.keys)
        self.module_set = make_set(folder / "built", payload)
        self.entry = self.folder / KEY.digest
        push(KEY, self.module_set, Folder(self.folder), self.private, log, scratch=folder)

    @property
    def public(self) -> str:
        """The setting of the nodes."""
        return str(self.keys / signing.PUBLIC_FILE)

    def sign_again(self, name: str, **changes: object) -> None:
        """Change fields of a document and sign it with the right key."""
        file = self.entry / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        documents = [(self.entry / one).read_bytes() for one in ("key.json", "manifest.json")]
        (self.entry / "signature.json").write_bytes(signing.sign(self.private, *documents))


def node(url: str, public: str, log: Log, limits: Limits = PATIENT, **environment: str) -> Remote:
    """A cold node."""
    return Remote(url, public, environment, log, time.sleep, limits)


def other_key() -> Key:
    """The key of another kernel."""
    return replace(KEY, kernel_release="6.12.0-1-amd64")


@pytest.fixture
def pushed(tmp_path: Path, log: Log) -> Pushed:
    """A remote folder with one entry."""
    return Pushed(tmp_path, log)


@pytest.fixture
def server(pushed: Pushed) -> Iterator[Server]:
    """An honest server of it."""
    with served(pushed.folder) as running:
        yield running


def text_of(log: Log) -> str:
    """All that was logged."""
    assert isinstance(log.stream, StringIO)
    return log.stream.getvalue()


def refused(server: Server, pushed: Pushed, log: Log, into: Path | None = None) -> tuple[DriverError, float]:
    """The error of a search, or of a fetch, and the seconds it took."""
    remote = node(server.url, pushed.public, log, QUICK)
    found = None if into is None else node(server.url, pushed.public, log).find(KEY)
    began = time.monotonic()
    with pytest.raises(DriverError) as error:
        remote.find(KEY) if found is None or into is None else remote.fetch(found, into)
    return error.value, time.monotonic() - began
