"""Modules from a remote folder: fetched and believed, or refused within bounds whatever the server does."""

import gzip
import os
import re
import signal
import socket
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError, Stopped
from driverctr.log import Log
from driverctr.modules.drafts import keep
from driverctr.modules.ondisk import verify
from driverctr.modules.store import Store
from driverctr.modules.web import JOIN_LIMIT
from tests.unit import remote_server
from tests.unit.conftest import FakeBin
from tests.unit.remote_entries import KEY, QUICK, Pushed, node, other_key, refused, text_of
from tests.unit.remote_entries import pushed as pushed
from tests.unit.remote_entries import server as server
from tests.unit.remote_server import Behaviour, Handler, Server, answer, redirect, serve, served

SECRET = "pl@nted/s%cret"
SLACK = 2.0
"""Seconds that a busy machine may add."""


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
        remote = node(server.url, pushed.public, quiet)
        found = keep(lambda: remote.draft(KEY, tmp_path), KEY, store, tmp_path / "none", time.sleep, quiet).module_set
        verify(found, meanwhile=lambda: None)
        assert store.find(KEY).folder == found.folder
        return found.folder

    with ThreadPoolExecutor(10) as pool:
        folders = set(pool.map(start, range(100)))
    assert len(folders) == 100
    assert fake_bin.calls == []
    assert len(server.asked) == 100 * 5, "three documents and two modules each, once"


def test_where_nothing_was_pushed_nothing_is_found(pushed: Pushed, server: Server, log: Log) -> None:
    with pytest.raises(DriverError, match=r"has no open 535\.309\.01 for 6\.12\.0-1-amd64") as error:
        node(server.url, pushed.public, log).find(other_key())
    assert error.value.code is Code.NO_MODULES
    assert len(server.asked) == 2, "with the kernel's build-id and without it"


MISBEHAVING: list[tuple[Behaviour, str]] = [
    (remote_server.stall, "timed out|not done"),
    (remote_server.stall_in_body, "timed out|not done"),
    (remote_server.drip_head, r"not done within 3 s"),
    (remote_server.drip_body, r"not done within 3 s"),
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

        handler.pour = cut  # type: ignore[method-assign]  # of this one request alone
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
def test_a_signal_ends_a_download_promptly(pushed: Pushed, server: Server, log: Log, during: Behaviour) -> None:
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


def test_a_resolver_that_hangs_costs_a_bounded_time(pushed: Pushed, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = threading.Event()

    def hang(*arguments: object, **named: object) -> None:
        resolved.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    try:
        with pytest.raises(DriverError, match=r"not done within 3 s"):
            node("http://modules.invalid", pushed.public, log, QUICK).find(KEY)
        assert time.monotonic() - began < QUICK.documents + JOIN_LIMIT + SLACK
    finally:
        resolved.set()
        for thread in threading.enumerate():
            if thread.name == "remote":
                thread.join(5)


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
