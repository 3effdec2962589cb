"""Signatures over a key and its manifest: what comes from outside is code for the kernel.

Ed25519 (RFC 8032) by the package `cryptography`, which is imported here only, and only where it is needed.
"""

import base64
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driverctr import files
from driverctr.addresses import is_key, split_keys
from driverctr.errors import Code, DriverError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SCHEMA = 1
ALGORITHM = "ed25519"
DOMAIN = b"driverctr: modules for a kernel, v1\0"
"""What every signed message begins with: a signature made for anything else is none of ours."""

PRIVATE_FILE = "private.pem"
PUBLIC_FILE = "public.pem"
LARGEST_KEY_FILE = 16384
"""Bytes; a PEM file of such a key has less than 200."""

VALID_PUBLIC = "the base64 of an Ed25519 public key (32 bytes), or the absolute path of its PEM file"


def message(key_document: bytes, manifest: bytes) -> bytes:
    """What is signed: both documents, each with its length before it, so that no byte passes from one to the other."""
    return DOMAIN + b"".join(len(part).to_bytes(8, "big") + part for part in (key_document, manifest))


def sign(private: "Ed25519PrivateKey", key_document: bytes, manifest: bytes) -> bytes:
    """The signature document for an entry."""
    signature = private.sign(message(key_document, manifest))
    document = {
        "schema": SCHEMA,
        "algorithm": ALGORITHM,
        "key_id": key_id(private.public_key()),
        "signature": base64.b64encode(signature).decode(),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def key_id(public: "Ed25519PublicKey") -> str:
    """A short name of a public key: the first 16 digits of the SHA-256 of its raw bytes."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def verify(
    public: Mapping[str, "Ed25519PublicKey"], key_document: bytes, manifest: bytes, signature: bytes, where: str
) -> None:
    """Believe both documents, or raise DriverError: signature-invalid, or remote-failed for no signature document.

    `public` are the keys believed, by their ids; `where` names the entry for the message.
    """
    from cryptography.exceptions import InvalidSignature

    document = _read_document(signature, where)
    named = public.get(document["key_id"])
    if named is None:
        raise DriverError(
            Code.SIGNATURE_INVALID,
            f"{where} is signed with key {document['key_id']}, and REMOTE_PUBLIC_KEY has {', '.join(public)}",
            "Add the public key of who signs to REMOTE_PUBLIC_KEY if you trust it, or push the entry again",
        )
    try:
        named.verify(document["signature"], message(key_document, manifest))
    except InvalidSignature:
        raise DriverError(
            Code.SIGNATURE_INVALID,
            f"{where}: key.json and manifest.json are not those that key {document['key_id']} has signed",
            "Nothing of it was used. Find out who changed it, then push the entry again",
        ) from None


def _read_document(text: bytes, where: str) -> dict[str, Any]:
    """The signature document, with the signature as bytes; raises DriverError (remote-failed)."""
    try:
        document = json.loads(text)
        if (document["schema"], document["algorithm"]) != (SCHEMA, ALGORITHM):
            raise ValueError(f"schema {document['schema']}, algorithm {document['algorithm']}")
        if not re.fullmatch("[0-9a-f]{16}", document["key_id"]):
            raise ValueError("key_id")
        return {**document, "signature": base64.b64decode(document["signature"], validate=True)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DriverError(
            Code.REMOTE_FAILED,
            f"{where}: what was served as signature.json is none: {type(error).__name__}",
            "See what the server answers there; a login page, a proxy's error page?",
        ) from error


def read_public(setting: str) -> Mapping[str, "Ed25519PublicKey"]:
    """The public keys of REMOTE_PUBLIC_KEY, one or more with commas between, by their ids.

    Raises DriverError (bad-setting).
    """
    found = [_read_public(word) for word in split_keys(setting)]
    if not found:
        raise DriverError(
            Code.BAD_SETTING,
            "REMOTE_URL is set and REMOTE_PUBLIC_KEY is not: nothing from there can be believed",
            f"Set REMOTE_PUBLIC_KEY to {VALID_PUBLIC}",
        )
    return {key_id(public): public for public in found}


def _read_public(word: str) -> "Ed25519PublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if is_key(word) or not word.startswith("/"):
        try:
            return Ed25519PublicKey.from_public_bytes(base64.b64decode(word, validate=True))
        except ValueError:
            raise _bad_public(f"{word[:100]!r} is not 32 bytes in base64") from None
    try:
        text, _ = _read_small(Path(word))
    except OSError as error:
        raise _bad_public(f"{word}: {error.strerror}") from error
    if b"PRIVATE KEY" in text:
        raise _bad_public(f"{word} holds a private key, which has no business on a node")
    try:
        public = serialization.load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_public(f"{word} holds no public key") from None
    if not isinstance(public, Ed25519PublicKey):
        raise _bad_public(f"{word} holds a key of another kind")
    return public


def _bad_public(what: str) -> DriverError:
    return DriverError(
        Code.BAD_SETTING,
        f"REMOTE_PUBLIC_KEY: {what}",
        f"Set it to {VALID_PUBLIC}, as `driverctr store keygen` makes both; several with commas between",
    )


def _read_small(path: Path) -> tuple[bytes, int]:
    """What a key file holds, and its mode; raises OSError, also where it is no regular file or far too long."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a file")
        text = os.read(handle, LARGEST_KEY_FILE + 1)
    finally:
        os.close(handle)
    if len(text) > LARGEST_KEY_FILE:
        raise OSError(errno.EFBIG, "far too long for a key")
    return text, mode


def read_private(path: Path) -> "Ed25519PrivateKey":
    """The private key of a PEM file that nobody else can read; raises DriverError (bad-setting)."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        text, mode = _read_small(path)
    except OSError as error:
        raise _bad_private(path, f"cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise DriverError(
            Code.BAD_SETTING,
            f"--private-key {path} is open to others (mode {stat.S_IMODE(mode):04o})",
            f"chmod 600 {path}; if somebody may have read it, make another pair",
        )
    try:
        private = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise _bad_private(path, "is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_private(path, "holds no private key") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise _bad_private(path, "holds a key of another kind")
    return private


def _bad_private(path: Path, why: str) -> DriverError:
    return DriverError(
        Code.BAD_SETTING,
        f"--private-key {path} {why}; it must be the PEM file of an Ed25519 private key, without a password",
        "`driverctr store keygen` makes one",
    )


def make_pair(folder: Path) -> str:
    """Write a new pair into a folder, `private.pem` and `public.pem`, and return the base64 of the public key.

    Raises DriverError (node-file) where one of them is there already, OSError where they cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (PRIVATE_FILE, PUBLIC_FILE):
        if (folder / name).exists():
            raise DriverError(
                Code.NODE_FILE,
                f"{folder / name} is there already: what was signed with it would lose its key",
                "Name another folder",
            )
    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.write_atomic(folder / PRIVATE_FILE, secret, mode=0o600)
    known = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    files.write_atomic(folder / PUBLIC_FILE, known)
    return base64.b64encode(public.public_bytes_raw()).decode()
