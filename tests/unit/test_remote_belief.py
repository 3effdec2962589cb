"""What a remote folder gives is believed by its signature, for the entry that was asked for, and by nothing else."""

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import signing
from tests.unit.remote_entries import KEY, Pushed, make_private, node, other_key, refused
from tests.unit.remote_entries import pushed as pushed
from tests.unit.remote_entries import server as server
from tests.unit.remote_server import Server


@pytest.mark.parametrize("name", ["key.json", "manifest.json"])
def test_a_changed_document_is_not_believed(pushed: Pushed, server: Server, log: Log, name: str) -> None:
    file = pushed.entry / name
    file.write_text(file.read_text().replace("535.309.01", "535.309.02"))
    assert refused(server, pushed, log)[0].code is Code.SIGNATURE_INVALID


def test_a_module_that_was_changed_is_not_believed(pushed: Pushed, server: Server, log: Log, tmp_path: Path) -> None:
    file = pushed.entry / "nvidia.ko.gz"
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
    error, _ = refused(server, pushed, log, into=tmp_path)
    assert error.code is Code.SIGNATURE_INVALID and "nvidia.ko is not the file that was signed: its sha256" in str(
        error
    )


@pytest.mark.parametrize("change", ["longer", "shorter", "noise"])
def test_a_module_of_another_length_is_not_believed(
    pushed: Pushed, server: Server, log: Log, tmp_path: Path, change: str
) -> None:
    file = pushed.entry / "nvidia.ko.gz"
    content = gzip.decompress(file.read_bytes())
    changed = {"longer": gzip.compress(content + b"x"), "shorter": gzip.compress(content[:-1])}
    file.write_bytes(changed.get(change, file.read_bytes()[:20] + os.urandom(20_000)))
    assert refused(server, pushed, log, into=tmp_path)[0].code is Code.SIGNATURE_INVALID


def test_documents_that_changed_places_are_not_believed(pushed: Pushed, server: Server, log: Log) -> None:
    key_file, manifest = pushed.entry / "key.json", pushed.entry / "manifest.json"
    key_text = key_file.read_text()
    key_file.write_text(manifest.read_text())
    manifest.write_text(key_text)
    assert refused(server, pushed, log)[0].code is Code.SIGNATURE_INVALID


def test_an_entry_under_the_name_of_another_is_not_believed(pushed: Pushed, server: Server, log: Log) -> None:
    shutil.copytree(pushed.entry, pushed.folder / other_key().digest)
    with pytest.raises(DriverError, match=r"another entry: kernel_release: wanted 6\.12.*there 6\.1\.0") as error:
        node(server.url, pushed.public, log).find(other_key())
    assert error.value.code is Code.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda manifest: manifest.update(module_type="proprietary"), "says module_type proprietary"),
        (lambda manifest: manifest["modules"]["nvidia"].update(vermagic="6.12.0 SMP "), r"built for kernel 6\.12\.0"),
        (lambda manifest: manifest.update(modules={}), "names no modules"),
    ],
)
def test_a_manifest_of_another_entry_is_not_believed_though_it_is_signed(
    pushed: Pushed, server: Server, log: Log, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    manifest = json.loads((pushed.entry / "manifest.json").read_text())
    change(manifest)
    pushed.sign_again("manifest.json", **manifest)
    error, _ = refused(server, pushed, log)
    assert error.code is Code.SIGNATURE_INVALID and re.search(says, error.message)


def test_an_entry_without_a_signature_is_none(pushed: Pushed, server: Server, log: Log) -> None:
    (pushed.entry / "signature.json").unlink()
    assert refused(server, pushed, log)[0].code is Code.NO_MODULES


@pytest.mark.parametrize("name", ["key.json", "manifest.json"])
def test_an_entry_that_lacks_a_document_is_told(pushed: Pushed, server: Server, log: Log, name: str) -> None:
    (pushed.entry / name).unlink()
    error, _ = refused(server, pushed, log)
    assert error.code is Code.REMOTE_FAILED and f"signed but has no {name}" in error.message


def test_an_entry_signed_by_somebody_else_is_not_believed(
    pushed: Pushed, server: Server, log: Log, tmp_path: Path
) -> None:
    other = make_private(tmp_path / "other")
    theirs = signing.key_id(other.public_key())
    remote = node(server.url, str(tmp_path / "other" / signing.PUBLIC_FILE), log)
    with pytest.raises(DriverError, match=f"signed with key .* REMOTE_PUBLIC_KEY has {theirs}") as error:
        remote.find(KEY)
    assert error.value.code is Code.SIGNATURE_INVALID
    signature = pushed.entry / "signature.json"
    signature.write_text(json.dumps({**json.loads(signature.read_text()), "key_id": theirs}))
    with pytest.raises(DriverError, match=f"not those that key {theirs} has signed") as error:
        remote.find(KEY)
    assert error.value.code is Code.SIGNATURE_INVALID
    both = f"{tmp_path / 'other' / signing.PUBLIC_FILE}, {pushed.public}"
    pushed.sign_again("manifest.json")
    assert node(server.url, both, log).find(KEY).key == KEY


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"modules": {"../nvidia": {"file": "../nvidia.ko"}}},
        {"modules": []},
        {"patches": 7},
    ],
)
def test_a_signed_manifest_that_is_not_ours_is_told(
    pushed: Pushed, server: Server, log: Log, changes: dict[str, object]
) -> None:
    pushed.sign_again("manifest.json", **changes)
    error, _ = refused(server, pushed, log)
    assert error.code is Code.REMOTE_FAILED and "signed but not as expected" in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "../nvidia.ko"),
        ("file", "/etc/nvidia.ko"),
        ("file", "nvidia-uvm.ko"),
        ("size", 10**12),
        ("size", -1),
        ("size", "1"),
        ("sha256", "x"),
    ],
)
def test_a_signed_manifest_cannot_lead_astray(
    pushed: Pushed, server: Server, log: Log, field: str, value: object
) -> None:
    modules = json.loads((pushed.entry / "manifest.json").read_text())["modules"]
    modules["nvidia"][field] = value
    pushed.sign_again("manifest.json", modules=modules)
    assert refused(server, pushed, log)[0].code is Code.REMOTE_FAILED


def test_a_full_disk_of_ours_is_not_the_servers_fault(pushed: Pushed, server: Server, log: Log) -> None:
    remote = node(server.url, pushed.public, log)
    found = remote.find(KEY)
    with pytest.raises(DriverError, match=r"nvidia\.ko cannot be written: No such file") as error:
        remote.fetch(found, Path("/nowhere"))
    assert error.value.code is Code.NODE_FILE
