"""A server of remote modules on 127.0.0.1, for tests: an honest one, and any that does as it likes."""

import contextlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Behaviour = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Serves a folder, except where `behaviour` decides; remembers what was asked and how much was sent."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a port of its own."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.tls = tls
        self.mute = False
        self.behaviour: Behaviour = serve
        self.login = ""
        self.entity_tags = True
        self.closing = threading.Event()
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.sent = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.server_port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the thread of the request: TLS, or nothing at all, before anything is read."""
        if self.mute:
            self.closing.wait(60)
        elif self.tls:
            with contextlib.suppress(OSError), self.tls.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        else:
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no error of a test."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """As the server's behaviour has it."""
        self.close_connection = True
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.headers.append(dict(self.headers))
        with contextlib.suppress(OSError):
            self.server.behaviour(self)

    do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def say(self, status: int, body: bytes = b"", **headers: object) -> None:
        """A whole answer; a header's name has "_" for "-"."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.pour(body)

    def pour(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.wfile.write(data)
        self.server.sent += len(data)

    def begin(self, length: int | None = None) -> None:
        """The head of an answer whose body does not come as it says."""
        self.pour(b"HTTP/1.1 200 OK\r\n" + (b"" if length is None else b"Content-Length: %d\r\n" % length) + b"\r\n")

    def wait(self, seconds: float) -> bool:
        """Wait; False when the test is over."""
        return not self.server.closing.wait(seconds)


def serve(handler: Handler) -> None:
    """An honest answer, with Range and If-Range as RFC 9110 has them; PUT makes folders."""
    server = handler.server
    if server.login and handler.headers.get("Authorization") != server.login:
        return handler.say(401)
    file = server.folder / handler.path.lstrip("/")
    if handler.command == "PUT":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(handler.rfile.read(int(handler.headers["Content-Length"])))
        return handler.say(201)
    if not file.is_file():
        return handler.say(404, b"<html>not here</html>")
    data = file.read_bytes()
    changed = formatdate(file.stat().st_mtime, usegmt=True)
    tag = f'"{hash(data):x}"'
    known = {"ETag": tag if server.entity_tags else None, "Last_Modified": changed}
    wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if wanted and handler.headers.get("If-Range") in (tag, changed):
        begin = int(wanted[1])
        if begin >= len(data):
            return handler.say(416)
        return handler.say(206, data[begin:], Content_Range=f"bytes {begin}-{len(data) - 1}/{len(data)}", **known)
    return handler.say(200, data, **known)


@contextlib.contextmanager
def served(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server for the length of the block."""
    with Server(folder, tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


def stall(handler: Handler) -> None:
    """Say nothing."""
    handler.wait(60)


def stall_in_body(handler: Handler) -> None:
    """Say a little, then nothing."""
    handler.begin(10_000)
    handler.pour(b"{")
    handler.wait(60)


def drip_head(handler: Handler) -> None:
    """A byte now and then, of headers that never end."""
    handler.pour(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while handler.wait(0.05):
        handler.pour(b"x")


def drip_body(handler: Handler) -> None:
    """A byte now and then."""
    handler.begin(10_000_000)
    while handler.wait(0.05):
        handler.pour(b"x")


def endless(handler: Handler) -> None:
    """Ten gigabytes that were announced."""
    handler.begin(10**10)
    while handler.wait(0):
        handler.pour(bytes(1 << 16))


def endless_chunks(handler: Handler) -> None:
    """Ten gigabytes that were not."""
    handler.pour(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while handler.wait(0):
        handler.pour(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


def endless_chunk_size(handler: Handler) -> None:
    """A chunk whose size has no end."""
    handler.pour(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while handler.wait(0):
        handler.pour(b"0" * (1 << 16))


def endless_headers(handler: Handler) -> None:
    """One header after the other."""
    handler.pour(b"HTTP/1.1 200 OK\r\n")
    while handler.wait(0):
        handler.pour(b"X-More: " + b"x" * 1000 + b"\r\n")


def truncate(handler: Handler) -> None:
    """Announce more than comes."""
    handler.begin(10_000)
    handler.pour(b'{"schema": 1')


def no_words(handler: Handler) -> None:
    """Close at once."""


def no_http(handler: Handler) -> None:
    """Speak something else."""
    handler.pour(b"SSH-2.0-OpenSSH_9.2p1\r\n\0\0\0\0")


def html(handler: Handler) -> None:
    """A login page."""
    handler.say(200, b"<html><body>Please log in</body></html>", Content_Type="text/html")


def not_json_enough(handler: Handler) -> None:
    """JSON that is none of ours, and nested deeply."""
    handler.say(200, b"[" * 100_000)


def answer(status: int) -> Behaviour:
    """Always this status."""
    return lambda handler: handler.say(status, b"no")


def redirect(location: str) -> Behaviour:
    """Always there; "" is no Location at all."""
    return lambda handler: handler.say(302, Location=location or None)


def endless_redirect(handler: Handler) -> None:
    """To itself, with ten gigabytes about it."""
    handler.pour(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 10000000000\r\n\r\n")
    while handler.wait(0):
        handler.pour(bytes(1 << 16))
