"""Metrics by HTTP: what is answered, that nobody waits for another client, and that it sleeps until it is asked."""

import contextlib
import errno
import http.client
import os
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driverctr import monitoring, pidlock, verify
from driverctr.metrics import extras, server
from driverctr.metrics.families import Extras
from driverctr.metrics.monitor import Monitor
from driverctr.metrics.server import MOST_CLIENTS, Server, listen
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.status import Phase
from tests.unit.test_metrics import EXPECTED, FULL, LOST, samples, tools

LOCAL = "127.0.0.1"


@pytest.fixture
def serving(paths: Paths, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of a driver that serves."""
    monkeypatch.setattr(pidlock, "is_held", lambda *_: True)
    monkeypatch.setattr(verify, "look", lambda *_: [])
    monitor = Monitor(tools(paths, runner))
    monitor.tell(replace(FULL, expected=EXPECTED))
    made = Server(listen(LOCAL, 0), monitor)
    made.start()
    yield made
    made.close()


def port_of(made: Server) -> int:
    return int(made.socket.getsockname()[1])


def get(made: Server, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection(LOCAL, port_of(made), timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read().decode()


def until(so: Callable[[], bool]) -> None:
    """Wait until something is so, on a machine that does much else."""
    deadline = time.monotonic() + 20
    while not so() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_scrape_is_in_the_format_that_was_asked_for(serving: Server) -> None:
    answer, body = get(serving, "/metrics?x=1")
    assert answer.status == 200 and (answer.getheader("Content-Type") or "").startswith("text/plain; version=0.0.4")
    assert samples(body)["driverctr_ready"] == 1
    answer, body = get(serving, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert (answer.getheader("Content-Type") or "").startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n") and "# TYPE driverctr info" in body


def test_probes_answer_with_a_line(serving: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/healthz", "/readyz"):
        answer, body = get(serving, path)
        assert (answer.status, body) == (200, "ok\n")
    monkeypatch.setattr(verify, "look", lambda *_: [LOST])
    answer, body = get(serving, "/readyz")
    assert (answer.status, body) == (503, f"not-ready: {LOST.text}\n")
    assert get(serving, "/healthz")[0].status == 200, "a driver that does not serve is looked after by a live process"
    other = replace(LOST, text="/run/nvidia/driver holds a tree that is not ours (https://me:hunter2@host/share)")
    monkeypatch.setattr(verify, "look", lambda *_: [other])
    assert "hunter2" not in get(serving, "/readyz")[1]
    serving.monitor.tell(replace(FULL, phase=Phase.STUCK))
    assert get(serving, "/healthz")[0].status == 503


def test_what_is_not_there_is_said_and_nothing_of_the_program(serving: Server) -> None:
    answer, body = get(serving, "/")
    assert answer.status == 404 and "/metrics" in body and answer.getheader("Server") == "driverctr"
    assert get(serving, "/metrics", "POST")[0].status == 501
    answer, body = get(serving, "/readyz", "HEAD")
    assert answer.status == 200 and body == "" and answer.getheader("Content-Length") == "3"


def test_a_bug_of_ours_is_a_servers_error_and_shows_no_more(serving: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(monitor: Monitor) -> None:
        raise ValueError("https://user:password@host")

    monkeypatch.setattr(Monitor, "collect", fail)
    answer, body = get(serving, "/metrics")
    assert answer.status == 500 and "ValueError" in body and "password" not in body


def test_clients_that_hang_keep_nobody_waiting_and_the_oldest_gives_way(serving: Server) -> None:
    with contextlib.ExitStack() as stack:
        hanging = [
            stack.enter_context(socket.create_connection((LOCAL, port_of(serving)), timeout=5))
            for _ in range(MOST_CLIENTS + 4)
        ]
        for one in hanging:
            with contextlib.suppress(OSError):
                one.sendall(b"GET /metr")
        began = time.monotonic()
        assert get(serving, "/metrics")[0].status == 200
        assert time.monotonic() - began < server.CLIENT_LIMIT / 2
        assert hanging[0].recv(100) == b"", "it was let go"
        hanging[-1].sendall(b"ics HTTP/1.0\r\n\r\n")
        assert hanging[-1].recv(100).startswith(b"HTTP/1.0 200"), "a slow one is served all the same"


def test_a_client_that_is_silent_is_let_go(serving: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.Handler, "timeout", 0.2)
    with socket.create_connection((LOCAL, port_of(serving)), timeout=5) as silent:
        assert silent.recv(100) == b""


def test_nothing_wakes_up_while_nobody_asks_and_the_end_is_at_once(serving: Server) -> None:
    def switches() -> int:
        lines = Path(f"/proc/self/task/{serving._thread.native_id}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    get(serving, "/healthz")
    seen = [-1]

    def calm() -> bool:
        seen.append(switches())
        return seen[-1] == seen[-2]

    until(calm)
    before = seen[-1]
    time.sleep(1.2)
    assert switches() == before
    serving.close()
    assert not serving._thread.is_alive(), "it need not be waited for in vain (END_LIMIT)"


def test_signals_stay_the_main_threads(serving: Server) -> None:
    masks: list[set[Any]] = []
    serving.monitor.refresh = lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))  # type: ignore[method-assign]  # called in the thread of a client
    get(serving, "/healthz")
    until(lambda: bool(masks))
    assert signal.SIGTERM in masks[0] and signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_takes_longer_is_read_after_the_answer(serving: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(extras, "read", lambda *_: Extras(1 if go_on.wait(20) else 0, 1))
    assert "driverctr_store_bytes" not in samples(get(serving, "/metrics")[1])
    assert "driverctr_store_bytes" not in samples(get(serving, "/metrics")[1]), "nobody waits for it"
    go_on.set()
    until(lambda: serving.monitor.extras is not None)
    assert samples(get(serving, "/metrics")[1])["driverctr_store_bytes"] == 1


def test_where_no_descriptor_is_left_it_does_not_spin(serving: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def none_left(self: Any) -> Any:
        tries.append(time.monotonic())
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socketserver.TCPServer, "get_request", none_left)
    monkeypatch.setattr(server, "NO_MORE_PAUSE", 5.0)
    with socket.create_connection((LOCAL, port_of(serving)), timeout=5):
        until(lambda: bool(tries))
        time.sleep(0.3)
    assert len(tries) == 1


def test_every_address_is_of_both_families_where_the_kernel_has_them() -> None:
    with listen("", 0) as every:
        with socket.create_connection((LOCAL, every.getsockname()[1]), timeout=5):
            pass
        assert every.family == (socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
    with listen(LOCAL, 0) as one, pytest.raises(OSError, match="in use"):
        listen(LOCAL, one.getsockname()[1])


def test_a_kernel_without_ipv6_is_served_by_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without(address: tuple[str, int], family: int = socket.AF_INET, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "no")
        return create(address, family=family, **options)

    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
    monkeypatch.setattr(socket, "create_server", without)
    with listen("", 0) as every:
        assert every.family == socket.AF_INET


def test_an_address_in_use_degrades_a_driver_and_is_served_once_it_is_free(
    paths: Paths, runner: Runner, log: Any
) -> None:
    taken = listen(LOCAL, 0)
    address = f"{LOCAL}:{taken.getsockname()[1]}"
    with monitoring.watched(tools(paths, runner, METRICS_ADDRESS=address)) as watch:
        told = watch(replace(FULL, degraded=()))
        (reason,) = told.degraded
        assert reason.startswith(f"no metrics by METRICS_ADDRESS={address}: Address already in use (give ")
        watch(told)
        assert log.stream.getvalue().count("already in use") == 1
        taken.close()
        assert watch(told).degraded == ()
        with socket.create_connection((LOCAL, int(address.rpartition(":")[2])), timeout=5) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert b"200" in client.recv(100)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOCAL, int(address.rpartition(":")[2])), timeout=5)
