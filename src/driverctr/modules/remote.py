"""Modules from an HTTP(S) folder that many nodes share: believed by their signature alone, whatever the server does.

Below the address lies one folder for each key, named by its digest: key.json, manifest.json, signature.json over both,
and each module compressed. What reads them is imported only where a remote folder is asked.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import MANIFEST, ModuleFile, ModuleSet, key, parse_document, parse_manifest
from driverctr.modules.bounds import Deadline, Limits
from driverctr.modules.drafts import Draft, scratch_folder, told_if_full
from driverctr.modules.entry import KEY
from driverctr.modules.key import Key
from driverctr.modules.ondisk import check_described
from driverctr.records import frozen

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from driverctr.modules.sinks import Sink
    from driverctr.modules.web import Web

    PublicKeys = Mapping[str, Ed25519PublicKey]

SIGNATURE = "signature.json"
WITHDRAWN = b"{}\n"
"""Stands for a signature while the files beside it are being replaced: nothing is there yet."""
LARGEST_DOCUMENT = 1 << 18
"""Bytes; a manifest of nine modules has five thousand."""
LARGEST_MODULE = 1 << 30
"""Bytes; nvidia.ko has 60 million."""
MOST_MODULES = 64


class Place(Protocol):
    """Where entries lie; `shown` is its name for messages."""

    shown: str

    def get(self, name: str, sink: "Sink", deadline: Deadline) -> None:
        """Bring a file; raises DriverError: no-modules where there is none, remote-failed, and what the sink raises."""


@frozen
class RemoteEntry:
    """An entry whose documents were signed; its modules have not come yet."""

    key: Key
    manifest: Mapping[str, Any]

    def module_set(self, folder: Path) -> ModuleSet:
        """The set as it lies in a folder once it has come."""
        return parse_manifest(self.manifest, folder)

    @property
    def size(self) -> int:
        """Bytes of all modules, unpacked."""
        return sum(module.size for module in self.module_set(Path()).modules.values())


@frozen
class Remote:
    """The provider that fetches; `public_key` is the setting, `environment` has proxies and CA bundles.

    `sleep` is what ends for a signal.
    """

    url: str
    public_key: str
    environment: Mapping[str, str]
    log: Log
    sleep: Callable[[float], object]
    limits: Limits = Limits()
    name: str = "remote"

    def find(self, wanted: Key) -> RemoteEntry:
        """The entry for a key: documents fetched, signature checked, and it is the entry that was asked for.

        Raises DriverError: no-modules where there is none, remote-failed, signature-invalid, bad-setting.
        """
        from driverctr.modules import signing

        public = signing.read_public(self.public_key)
        web = self._web()
        deadline = Deadline.after(self.limits.documents)
        for candidate in wanted.names():
            found = read_entry(web, candidate, public, deadline)
            if found is not None:
                return found
        raise DriverError(
            Code.NO_MODULES,
            f"{web.shown} has no {wanted.wish} under key {wanted.digest[:12]}",
            "Push one with `driverctr store push`",
        )

    def fetch(self, found: RemoteEntry, into: Path) -> ModuleSet:
        """Bring the modules of an entry into a folder, each compared with what was signed.

        Raises DriverError: remote-failed, signature-invalid, no-space, node-file; then the folder is for the bin.
        """
        web = self._web()
        deadline = Deadline.after(self.limits.files)
        draft = found.module_set(into)
        with self.log.step("remote", f"fetch {len(draft.modules)} modules ({found.size / 1e6:.0f} MB) of {web.shown}"):
            for name, module in draft.modules.items():
                fetch_module(web, found.key, name, module, deadline)
        return draft

    @contextmanager
    def draft(self, wanted: Key, scratch: Path) -> Iterator[Draft]:
        """The set for a key, in a scratch folder for as long as the block lasts; raises as `find` and `fetch` do."""
        found = self.find(wanted)
        with told_if_full(scratch), scratch_folder(scratch) as folder:
            yield Draft(self.fetch(found, folder), {"remote": self._web().shown}, key=found.key)

    def _web(self) -> "Web":
        from driverctr.modules.web import Web

        return Web(self.url, self.environment, self.limits, self.log, self.sleep)


def configured(config: Config, log: Log, sleep: Callable[[float], object]) -> Remote:
    """The remote folder of the settings; raises DriverError (no-modules) where none is set."""
    if not config.remote_url:
        raise DriverError(Code.NO_MODULES, "REMOTE_URL is not set")
    return Remote(config.remote_url, config.remote_public_key, config.child_environment, log, sleep)


def read_entry(place: Place, asked: Key, public: "PublicKeys", deadline: Deadline) -> RemoteEntry | None:
    """The entry that lies under a key's own name, None where nothing does.

    The signature is what is withdrawn first and written last: without it there is nothing. Raises DriverError
    (remote-failed, signature-invalid).
    """
    from driverctr.modules import signing

    where = f"{place.shown}/{asked.digest}"
    signature = _document(place, asked, SIGNATURE, deadline)
    if signature is None or signature == WITHDRAWN:
        return None
    key_document = _document(place, asked, KEY, deadline)
    manifest = _document(place, asked, MANIFEST, deadline)
    if key_document is None or manifest is None:
        raise _half(where, KEY if key_document is None else MANIFEST)
    signing.verify(public, key_document, manifest, signature, where)
    return _understand(asked, key_document, manifest, where)


def _document(place: Place, asked: Key, name: str, deadline: Deadline) -> bytes | None:
    """One of the three, None where there is none; raises DriverError (remote-failed)."""
    from driverctr.modules.sinks import Document

    sink = Document(f"{place.shown}/{asked.digest}/{name}", LARGEST_DOCUMENT)
    try:
        place.get(f"{asked.digest}/{name}", sink, deadline)
    except DriverError as error:
        if error.code is Code.NO_MODULES:
            return None
        raise
    return sink.content


def _half(where: str, name: str) -> DriverError:
    return DriverError(Code.REMOTE_FAILED, f"{where} is signed but has no {name}", "Push the entry again")


def _understand(asked: Key, key_document: bytes, manifest: bytes, where: str) -> RemoteEntry:
    """What was signed, as the entry that was asked for; raises DriverError (signature-invalid, remote-failed)."""
    try:
        signed = key.read(parse_document(key_document))
        document = parse_document(manifest)
        found = parse_manifest(document, Path(where))
        if len(found.modules) > MOST_MODULES or any(one.size > LARGEST_MODULE for one in found.modules.values()):
            raise ValueError(f"more than {MOST_MODULES} modules, or one of more than {LARGEST_MODULE} bytes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DriverError(
            Code.REMOTE_FAILED,
            f"{where} is signed but not as expected: {type(error).__name__}: {error}",
            "Push it again with the driverctr that is to read it",
        ) from error
    if signed != asked:
        differing = "; ".join(asked.differing(signed)) or "kernel_build_id"
        raise _another(f"{where} was signed as another entry: {differing}")
    try:
        check_described(found, asked.wish)
    except DriverError as error:
        raise _another(f"{where} was signed with a manifest of another entry: {error.message}") from error
    return RemoteEntry(signed, document)


def _another(what: str) -> DriverError:
    return DriverError(
        Code.SIGNATURE_INVALID, what, "Nothing of it was used. Find out who put it there, and push the right one"
    )


def fetch_module(place: Place, asked: Key, name: str, module: ModuleFile, deadline: Deadline) -> None:
    """Bring one module to `module.file`; raises DriverError: remote-failed, signature-invalid, no-space, node-file."""
    from driverctr.modules.sinks import Unpacked, told_if_full

    with told_if_full(module.file), module.file.open("wb") as file:
        sink = Unpacked(module, file)
        try:
            place.get(f"{asked.digest}/{compressed(name)}", sink, deadline)
        except DriverError as error:
            if error.code is Code.NO_MODULES:
                raise _half(f"{place.shown}/{asked.digest}", compressed(name)) from error
            raise
        sink.check()


def compressed(module: str) -> str:
    """How the file of a module is called there."""
    return f"{module}.ko.gz"
