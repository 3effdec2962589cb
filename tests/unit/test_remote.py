"""Modules from a remote folder: fetched and believed, or refused within bounds whatever the server does."""

import gzip
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from driverctr.errors import Code, DriverError, Stopped
from driverctr.log import Log
from driverctr.modules import signing
from driverctr.modules.key import Key
from driverctr.modules.ondisk import verify
from driverctr.modules.remote import Remote
from driverctr.modules.store import Store
from driverctr.modules.web import JOIN_LIMIT
from driverctr.run import Runner
from tests.unit import remote_server
from tests.unit.conftest import FakeBin
from tests.unit.remote_entries import KEY, QUICK, Pushed, make_private, node, other_key
from tests.unit.remote_server import Behaviour, Handler, Server, answer, redirect, serve, served

SECRET = "pl@nted/s%cret"
SLACK = 2.0
"""Seconds that a busy machine may add."""


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


def test_what_was_pushed_is_fetched_whole(pushed: Pushed, server: Server, log: Log, tmp_path: Path) -> None:
    remote = node(server.url, pushed.public, log)
    (tmp_path / "draft").mkdir()
    found = remote.find(KEY)
    assert found.key == KEY and found.size == sum(module.size for module in pushed.module_set.modules.values())
    draft = remote.fetch(found, tmp_path / "draft")
    assert draft == found.module_set(tmp_path / "draft")
    verify(draft, meanwhile=lambda: None)
    assert {path.name for path in draft.folder.iterdir()} == {"nvidia.ko", "nvidia-uvm.ko"}
    assert replace(draft, folder=Path(), modules={}) == replace(pushed.module_set, folder=Path(), modules={})


def test_an_entry_of_a_kernel_that_had_not_run_is_found_by_one_that_runs(tmp_path: Path, log: Log) -> None:
    pushed = Pushed(tmp_path, log)
    blind = replace(KEY, kernel_build_id="")
    pushed.entry.rename(pushed.folder / blind.digest)
    pushed.entry = pushed.folder / blind.digest
    pushed.sign_again("key.json", kernel_build_id="")
    (pushed.entry / "key.json").write_text(blind.document)
    pushed.sign_again("manifest.json")
    with served(pushed.folder) as server:
        assert node(server.url, pushed.public, log).find(KEY).key == blind


def test_a_hundred_cold_nodes_compile_nothing(
    pushed: Pushed, server: Server, tmp_path: Path, fake_bin: FakeBin
) -> None:
    fake_bin.add("make", "exit 1")

    def start(number: int) -> Path:
        quiet = Log(stream=StringIO())
        store = Store.open(tmp_path / f"node{number}/store", quiet)
        provide(KEY, store, node(server.url, pushed.public, quiet), Runner(fake_bin.environment, quiet))
        found = store.find(KEY)
        verify(found.module_set, meanwhile=lambda: None)
        return found.folder

    with ThreadPoolExecutor(10) as pool:
        folders = set(pool.map(start, range(100)))
    assert len(folders) == 100
    assert fake_bin.calls == []
    assert len(server.asked) == 100 * 5, "three documents and two modules each, once"


def provide(key: Key, store: Store, remote: Remote, runner: Runner) -> str:
    """What a start does that finds nothing on its own disk: fetch into the store, else build."""
    with store.building(key, time.sleep):
        try:
            with tempfile.TemporaryDirectory(dir=store.folder) as scratch:
                draft = remote.fetch(remote.find(key), Path(scratch))
                store.publish(key, draft, None, {"source": "remote"})
            return "remote"
        except DriverError:
            runner.run(["make"])
            return "build"


@pytest.mark.parametrize("behaviour", [remote_server.stall, remote_server.truncate, remote_server.html, answer(500)])
def test_where_the_server_fails_a_node_builds(
    pushed: Pushed, server: Server, log: Log, tmp_path: Path, fake_bin: FakeBin, runner: Runner, behaviour: Behaviour
) -> None:
    fake_bin.add("make")
    server.behaviour = behaviour
    store = Store.open(tmp_path / "store", log)
    began = time.monotonic()
    assert provide(KEY, store, node(server.url, pushed.public, log, QUICK), runner) == "build"
    assert fake_bin.calls == ["make"] and store.entries() == ()
    assert time.monotonic() - began < QUICK.documents + JOIN_LIMIT + SLACK


def test_where_nothing_was_pushed_nothing_is_found(pushed: Pushed, server: Server, log: Log) -> None:
    with pytest.raises(DriverError, match=r"has no open 535\.309\.01 for 6\.12\.0-1-amd64") as error:
        node(server.url, pushed.public, log).find(other_key())
    assert error.value.code is Code.NO_MODULES
    assert len(server.asked) == 2, "with the kernel's build-id and without it"


MISBEHAVING: list[tuple[Behaviour, str]] = [
    (remote_server.stall, "timed out|not done"),
    (remote_server.stall_in_body, "timed out|not done"),
    (remote_server.drip_head, r"not done within 1\.2 s"),
    (remote_server.drip_body, r"not done within 1\.2 s"),
    (remote_server.endless, "longer than"),
    (remote_server.endless_chunks, "longer than"),
    (remote_server.endless_chunk_size, r"signature\.json: "),
    (remote_server.endless_headers, r"signature\.json: "),
    (remote_server.truncate, "IncompleteRead"),
    (remote_server.no_words, "RemoteDisconnected"),
    (remote_server.no_http, "BadStatusLine"),
    (remote_server.html, "is none"),
    (remote_server.not_json_enough, "is none"),
    (answer(500), "answers 500"),
    (answer(403), "answers 403"),
    (answer(206), "another part than we asked for"),
    (answer(304), "answers 304"),
    (remote_server.endless_redirect, "more than 3 times"),
    (redirect("/elsewhere"), "more than 3 times"),
    (redirect("file:///etc/passwd"), "redirected from http to file"),
    (redirect("ftp://127.0.0.1/x"), "redirected from http to ftp"),
    (redirect("http://[::bad/"), "no address"),
    (redirect("http://127.0.0.1:99999999/"), "no address"),
    (redirect(""), "no address"),
]


@pytest.mark.parametrize(("behaviour", "says"), MISBEHAVING)
def test_a_server_that_misbehaves_costs_a_bounded_time(
    pushed: Pushed, server: Server, log: Log, behaviour: Behaviour, says: str
) -> None:
    server.behaviour = behaviour
    error, seconds = refused(server, pushed, log)
    assert re.search(says, error.message) and error.code is Code.REMOTE_FAILED and error.remedy
    assert seconds < QUICK.documents + JOIN_LIMIT + SLACK
    assert server.sent < 64 << 20
    assert not [thread for thread in threading.enumerate() if thread.name == "remote"], "what was given up has ended"


def only(name: str, behaviour: Behaviour) -> Behaviour:
    """Misbehave for one file."""
    return lambda handler: behaviour(handler) if handler.path.endswith(name) else serve(handler)


def zeros(handler: Handler) -> None:
    """Megabytes of nothing in two thousand bytes."""
    handler.say(200, gzip.compress(bytes(2 << 20), 9))


@pytest.mark.parametrize(
    ("behaviour", "code", "says"),
    [
        (remote_server.stall, Code.REMOTE_FAILED, "timed out|not done within"),
        (remote_server.stall_in_body, Code.REMOTE_FAILED, "timed out|not done within"),
        (remote_server.drip_head, Code.REMOTE_FAILED, "not done within"),
        (remote_server.endless, Code.SIGNATURE_INVALID, "cannot be unpacked|it is longer"),
        (remote_server.html, Code.SIGNATURE_INVALID, "cannot be unpacked"),
        (remote_server.no_words, Code.REMOTE_FAILED, "RemoteDisconnected"),
        (answer(500), Code.REMOTE_FAILED, "answers 500"),
        (answer(404), Code.REMOTE_FAILED, r"signed but has no nvidia\.ko\.gz"),
        (zeros, Code.SIGNATURE_INVALID, "unpacks to more"),
    ],
)
def test_a_module_that_does_not_come_costs_a_bounded_time(
    pushed: Pushed, server: Server, log: Log, tmp_path: Path, behaviour: Behaviour, code: Code, says: str
) -> None:
    server.behaviour = only("/nvidia.ko.gz", behaviour)
    error, seconds = refused(server, pushed, log, into=tmp_path)
    assert error.code is code and re.search(says, error.message)
    assert seconds < QUICK.files + JOIN_LIMIT + SLACK
    assert (tmp_path / "nvidia.ko").stat().st_size <= pushed.module_set.modules["nvidia"].size


def test_a_port_where_nobody_listens_is_tried_again_and_told(pushed: Pushed, log: Log) -> None:
    with served(pushed.folder) as gone:
        pass
    error, _ = refused(gone, pushed, log)
    assert error.code is Code.REMOTE_FAILED and "Connection refused" in error.message
    assert text_of(log).count(f"of {QUICK.attempts} failed, next in") == QUICK.attempts - 1


def test_a_server_that_recovers_is_believed_again(pushed: Pushed, server: Server, log: Log) -> None:
    answers = iter([answer(503), remote_server.no_words])
    server.behaviour = lambda handler: next(answers, serve)(handler)
    assert node(server.url, pushed.public, log).find(KEY).key == KEY


class Cut:
    """Breaks off every answer for a module after so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, handler: Handler) -> None:
        if not handler.path.endswith("/nvidia.ko.gz"):
            return serve(handler)
        pour, left = handler.pour, self.size

        def cut(data: bytes) -> None:
            pour(data[:left])
            if len(data) > left:
                raise ConnectionAbortedError

        handler.pour = cut  # type: ignore[method-assign]
        return serve(handler)


@pytest.mark.parametrize("entity_tags", [True, False])
def test_a_broken_download_goes_on_where_it_ended(tmp_path: Path, log: Log, entity_tags: bool) -> None:
    pushed = Pushed(tmp_path, log, payload=os.urandom(250_000))
    packed = (pushed.entry / "nvidia.ko.gz").stat().st_size
    with served(pushed.folder) as server:
        server.entity_tags = entity_tags
        remote = node(server.url, pushed.public, log)
        found = remote.find(KEY)
        server.behaviour = Cut(packed // 3 + 1)
        verify(remote.fetch(found, tmp_path), meanwhile=lambda: None)
        ranges = [headers["Range"] for headers in server.headers if "Range" in headers]
    assert ranges == [f"bytes={packed // 3 + 1}-", f"bytes={2 * (packed // 3 + 1)}-"]
    assert server.sent < packed * 2.2, "no byte of it came twice"


def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path: Path, log: Log) -> None:
    pushed = Pushed(tmp_path, log, payload=os.urandom(250_000))
    file = pushed.entry / "nvidia.ko.gz"
    right = file.read_bytes()
    with served(pushed.folder) as server:
        remote = node(server.url, pushed.public, log)
        found = remote.find(KEY)
        file.write_bytes(right[:1000] + bytes(len(right) - 1000))
        cut = Cut(900)

        def behave(handler: Handler) -> None:
            if handler.path.endswith("/nvidia.ko.gz") and "Range" in handler.headers:
                file.write_bytes(right)
                return serve(handler)
            return cut(handler)

        server.behaviour = behave
        verify(remote.fetch(found, tmp_path), meanwhile=lambda: None)


@pytest.mark.parametrize("status", [416, 206])
def test_a_server_that_cannot_go_on_is_asked_for_the_whole(tmp_path: Path, log: Log, status: int) -> None:
    pushed = Pushed(tmp_path, log, payload=os.urandom(100_000))
    cut = Cut(900)

    def behave(handler: Handler) -> None:
        asked = [line for line in handler.server.asked if line.endswith("/nvidia.ko.gz")]
        if "Range" in handler.headers:
            return handler.say(status, b"other", Content_Range="bytes 7-11/12")
        return cut(handler) if len(asked) == 1 else serve(handler)

    with served(pushed.folder) as running:
        remote = node(running.url, pushed.public, log)
        found = remote.find(KEY)
        running.behaviour = behave
        verify(remote.fetch(found, tmp_path), meanwhile=lambda: None)


@pytest.mark.parametrize("during", [remote_server.stall, remote_server.drip_head, remote_server.stall_in_body])
def test_a_signal_ends_a_download_promptly(
    pushed: Pushed, server: Server, log: Log, during: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    former = signal.signal(signal.SIGUSR1, stop)
    server.behaviour = during
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    began = time.monotonic()
    try:
        timer.start()
        with pytest.raises(Stopped):
            node(server.url, pushed.public, log).find(KEY)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, former)
    assert time.monotonic() - began < 0.3 + JOIN_LIMIT + SLACK
    assert not [thread for thread in threading.enumerate() if thread.name == "remote"]


def test_a_signal_is_heard_in_the_pause_between_two_tries(pushed: Pushed, server: Server, log: Log) -> None:
    def sleep(seconds: float) -> None:
        raise Stopped(signal.SIGTERM)

    server.behaviour = answer(500)
    with pytest.raises(Stopped):
        replace(node(server.url, pushed.public, log), sleep=sleep).find(KEY)
    assert len(server.asked) == 1


def test_name_and_password_are_used_and_never_shown(pushed: Pushed, server: Server, log: Log, tmp_path: Path) -> None:
    server.login = "Basic " + b64encode(f"us/er:{SECRET}".encode()).decode()
    place = server.url.removeprefix("http://")
    encoded = "pl%40nted%2Fs%25cret"
    url = f"http://us%2Fer:{encoded}@{place}"
    remote = node(url, pushed.public, log, QUICK)
    remote.fetch(node(url, pushed.public, log).find(KEY), tmp_path)
    said = [text_of(log)]
    quick = [row for row in MISBEHAVING if not re.match("stall|drip", row[0].__name__)]
    for behaviour, _ in [*quick, (answer(404), ""), (redirect(f"{url}/again"), ""), (redirect("ftp://x"), "")]:
        server.behaviour = behaviour
        with pytest.raises(DriverError) as error:
            remote.find(KEY)
        said += [str(error.value), repr(error.value)]
    assert "http://...@" in said[0]
    for secret in (SECRET, encoded, "us/er", "us%2Fer", server.login.split()[1]):
        assert not [text for text in [*said, text_of(log)] if secret in text]


@pytest.mark.parametrize(("host", "sent"), [("127.0.0.1", True), ("localhost", False)])
def test_a_redirect_to_another_server_does_not_take_the_password_along(
    pushed: Pushed, server: Server, log: Log, host: str, sent: bool
) -> None:
    def behave(handler: Handler) -> None:
        if handler.path.startswith("/moved"):
            handler.path = handler.path.removeprefix("/moved")
            return serve(handler)
        return redirect(f"http://{host}:{server.server_port}/moved{handler.path}")(handler)

    server.behaviour = behave
    found = node(server.url.replace("//", "//name:word@"), pushed.public, log).find(KEY)
    assert found.key == KEY
    assert ["Authorization" in headers for headers in server.headers] == [True, sent] * 3


def test_proxies_and_authorities_come_from_the_environment(
    pushed: Pushed, server: Server, log: Log, tmp_path: Path
) -> None:
    proxied: list[str] = []

    def proxy(handler: Handler) -> None:
        proxied.append(handler.path)
        handler.path = handler.path.removeprefix("http://modules.invalid/base")
        serve(handler)

    server.behaviour = proxy
    environment = {"http_proxy": server.url, "no_proxy": "10.0.0.0/8,elsewhere.invalid"}
    remote = replace(node("http://modules.invalid/base", pushed.public, log, QUICK), environment=environment)
    assert remote.find(KEY).key == KEY
    assert len(proxied) == 3
    with pytest.raises(DriverError) as error:
        replace(remote, environment={**environment, "no_proxy": ".invalid"}).find(KEY)
    assert error.value.code is Code.REMOTE_FAILED and len(proxied) == 3
    with pytest.raises(DriverError, match=r"REQUESTS_CA_BUNDLE=/nowhere\.pem: no such file") as error:
        replace(remote, environment={"REQUESTS_CA_BUNDLE": "/nowhere.pem", "SSL_CERT_FILE": "/etc/passwd"}).find(KEY)
    assert error.value.code is Code.BAD_SETTING


@pytest.mark.parametrize("value", ["http://[bad", "\udcff://", "socks5://127.0.0.1:1", "http://:1"])
def test_a_proxy_that_is_none_is_told(pushed: Pushed, server: Server, log: Log, value: str) -> None:
    remote = node(server.url, pushed.public, log, QUICK, http_proxy=value)
    with pytest.raises(DriverError) as error:
        remote.find(KEY)
    assert error.value.code is Code.REMOTE_FAILED


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
