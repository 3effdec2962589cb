"""/metrics, /healthz and /readyz by HTTP, in threads that sleep until somebody asks.

No client can keep another, or the driver, waiting: each has a thread of its own, there are few of them, and the oldest
gives way to a new one. Nothing here wakes up by itself (socketserver's serve_forever does, twice a second).
"""

import contextlib
import errno
import os
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client.exposition import choose_encoder

from driverctr.conceal import conceal
from driverctr.metrics.monitor import Monitor

MOST_CLIENTS = 16
"""Connections at a time; a scrape takes some milliseconds, so that one in the way is a client that hangs."""

CLIENT_LIMIT = 10.0
"""Seconds a client may be silent."""

NO_MORE_PAUSE = 1.0
"""Seconds until the next try where no connection can be taken (no descriptor is left)."""

END_LIMIT = 1.0
"""Seconds the thread has to notice that it is to end."""

NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""What a kernel without IPv6, or one where it is switched off (ipv6.disable, sysctl disable_ipv6), says of it."""

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type and body."""


def listen(host: str, port: int) -> socket.socket:
    """A socket on an address; "" is every one of IPv6 and IPv4, or of IPv4 where the kernel has no other.

    Raises OSError.
    """
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=MOST_CLIENTS)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=MOST_CLIENTS, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in NO_IPV6:
                raise
    return socket.create_server(("", port), backlog=MOST_CLIENTS)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves what a monitor knows until it is closed."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, monitor: Monitor) -> None:
        """Take over a listening socket."""
        socketserver.BaseServer.__init__(self, listening.getsockname(), Handler)
        self.socket = listening
        self.monitor = monitor
        self._ended = False
        self._clients: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)

    def start(self) -> None:
        """Serve from now on; signals stay those of the thread that calls us. Raises OSError; then it is closed."""
        former = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        except RuntimeError as error:  # "can't start new thread"
            self.server_close()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def close(self) -> None:
        """Serve nobody any more; who is just being served may lose the rest."""
        self._ended = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        self._thread.join(END_LIMIT)
        self.server_close()

    def _serve(self) -> None:
        while not self._ended:
            self.handle_request()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; raises OSError, but not at once again and again."""
        try:
            return super().get_request()
        except OSError:
            if not self._ended:
                time.sleep(NO_MORE_PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to serve a client; where there are too many the oldest is let go."""
        with self._lock:
            if len(self._clients) >= MOST_CLIENTS:
                oldest = next(iter(self._clients))
                del self._clients[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._clients[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client; what takes longer is read for the next one, after this one has its answer."""
        super().process_request_thread(request, client_address)
        if not self._ended:
            self.monitor.refresh()

    def shutdown_request(self, request: Any) -> None:
        """A client is served, or lost."""
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to tell of; what fails of ours is answered (Handler)."""


class Handler(BaseHTTPRequestHandler):
    """One request of one client."""

    server: Server
    timeout = CLIENT_LIMIT

    def do_GET(self) -> None:
        """Answer."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        answers: dict[str, Callable[[], Answer]] = {
            "/metrics": self._metrics,
            "/healthz": lambda: _probe(self.server.monitor.why_not_alive()),
            "/readyz": lambda: _probe(self.server.monitor.why_not_ready()),
        }
        answer = answers.get(self.path.partition("?")[0])
        try:
            status, kind, body = answer() if answer else _text(HTTPStatus.NOT_FOUND, f"see {' '.join(answers)}")
        except Exception as bug:  # noqa: BLE001  # a bug here must not look like a client's fault, or end anything
            status, kind, body = _text(HTTPStatus.INTERNAL_SERVER_ERROR, f"a bug in driverctr: {type(bug).__name__}")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _metrics(self) -> Answer:
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        return HTTPStatus.OK, kind, encode(self.server.monitor.collect())

    def version_string(self) -> str:
        """No version: what runs is told by /metrics."""
        return "driverctr"

    def log_message(self, format: str, *args: Any) -> None:
        """Our log is no access log."""


def _probe(why_not: str) -> Answer:
    return _text(HTTPStatus.SERVICE_UNAVAILABLE, why_not) if why_not else _text(HTTPStatus.OK, "ok")


def _text(status: HTTPStatus, line: str) -> Answer:
    return status, "text/plain; charset=utf-8", f"{conceal(' '.join(line.split()))}\n".encode()
