"""The keys of a remote folder and what they sign: made for their owner, and refused where they are something else."""

import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from driverctr import config as settings
from driverctr.errors import Code, DriverError
from driverctr.modules import signing

RAW = bytes(range(32))
PEM = serialization.Encoding.PEM


def test_a_pair_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    printed = signing.make_pair(tmp_path / "keys")
    private, public = tmp_path / "keys/private.pem", tmp_path / "keys/public.pem"
    assert (private.stat().st_mode & 0o777, private.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    by_text, by_file = signing.read_public(printed), signing.read_public(str(public))
    assert by_text.keys() == by_file.keys() == {signing.key_id(signing.read_private(private).public_key())}
    assert settings.load({"REMOTE_PUBLIC_KEY": printed}).remote_public_key == printed
    before = private.read_bytes()
    with pytest.raises(DriverError, match=r"private\.pem is there already") as error:
        signing.make_pair(tmp_path / "keys")
    assert error.value.code is Code.NODE_FILE and private.read_bytes() == before


def test_a_key_may_begin_as_a_path_does() -> None:
    slashed = base64.b64encode(b"\xff" * 32).decode()
    assert slashed.startswith("/") and len(signing.read_public(slashed)) == 1


@pytest.mark.parametrize(
    "value",
    ["x", "AAAA", base64.b64encode(RAW).decode()[:-1], base64.b64encode(RAW + b"x").decode(), "keys/public.pem", "é"],
)
def test_a_public_key_that_is_malformed_is_refused_at_the_start(value: str) -> None:
    for given in (value, f"/etc/key.pem,{value}"):
        with pytest.raises(DriverError, match=r"REMOTE_PUBLIC_KEY=.* is not the base64 of a 32 byte") as error:
            settings.load({"REMOTE_PUBLIC_KEY": given})
        assert error.value.code is Code.BAD_SETTING
    with pytest.raises(DriverError, match="REMOTE_PUBLIC_KEY"):
        signing.read_public(value)


def pem_files(folder: Path) -> dict[str, bytes]:
    """Files that are not the PEM file of an Ed25519 public key."""
    private = ed25519.Ed25519PrivateKey.generate()
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {
        "holds a private key": private.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "holds a key of another kind": other.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "holds no public key": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "far too long": b"x" * 20_000,
    }


def test_a_public_key_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    for says, content in pem_files(tmp_path).items():
        (tmp_path / "public.pem").write_bytes(content)
        with pytest.raises(DriverError, match=f"REMOTE_PUBLIC_KEY: .*public.pem.*{says}") as error:
            signing.read_public(str(tmp_path / "public.pem"))
        assert error.value.code is Code.BAD_SETTING and "store keygen" in error.value.remedy
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("gone", "No such file"), ("pipe", "not a file"), ("", "not a file")):
        with pytest.raises(DriverError, match=says):
            signing.read_public(f"{tmp_path}/{name}")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    signing.make_pair(tmp_path)
    (tmp_path / "private.pem").chmod(mode)
    with pytest.raises(DriverError, match=rf"open to others \(mode 0{mode:o}\)") as error:
        signing.read_private(tmp_path / "private.pem")
    assert error.value.code is Code.BAD_SETTING and "chmod 600" in error.value.remedy


def test_a_private_key_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    private, file = ed25519.Ed25519PrivateKey.generate(), tmp_path / "private.pem"
    locked = serialization.BestAvailableEncryption(b"word")
    other = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    for says, content in {
        "is encrypted": private.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked),
        "holds a key of another kind": other.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain),
        "holds no private key": b"hello",
    }.items():
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(DriverError, match=says) as error:
            signing.read_private(file)
        assert error.value.code is Code.BAD_SETTING
    with pytest.raises(DriverError, match="cannot be read: No such file"):
        signing.read_private(tmp_path / "gone")


def test_a_signature_says_what_it_is_for_and_where_each_document_ends() -> None:
    assert signing.message(b"ab", b"c") != signing.message(b"a", b"bc") != signing.message(b"", b"abc")
    assert signing.message(b"", b"").startswith(b"driverctr: modules for a kernel, v1\0")
