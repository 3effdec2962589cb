"""Connections of `requests` that another thread can end: no time limit of a library covers a whole exchange."""

import contextlib
import socket
import threading
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection


class Call:
    """One exchange with a server, done by a thread of its own while another waits for its end."""

    def __init__(self) -> None:
        """Nothing is open."""
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.abandoned = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def watch(self, opened: socket.socket) -> None:
        """Remember a connection; a second descriptor of it stays ours whatever TLS does with the first."""
        with self._lock:
            self._sockets.append(opened.dup())
        if self.abandoned:
            self.end()

    def end(self) -> None:
        """Nobody waits any more: whatever is read from or written to a connection fails at once."""
        with self._lock:
            self.abandoned = True
            for opened in self._sockets:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
                opened.close()
            self._sockets.clear()


class Adapter(HTTPAdapter):
    """Tells a call of every connection that is opened for it."""

    def __init__(self, call: Call) -> None:
        """No retries of its own: they cannot resume."""
        super().__init__(max_retries=0)
        self.call = call

    def get_connection_with_tls_context(self, *arguments: Any, **named: Any) -> Any:
        """The pool for a request, with connections that are watched (requests, HTTPAdapter: for subclasses)."""
        pool: Any = super().get_connection_with_tls_context(*arguments, **named)
        pool.ConnectionCls = watched(pool.ConnectionCls, self.call)
        return pool


def watched(kind: Any, call: Call) -> Any:
    """A kind of connection that tells of the socket it opens, before TLS or a proxy say their first word on it."""

    def open_socket(connection: HTTPConnection) -> socket.socket:
        opened: socket.socket = kind._new_conn(connection)
        call.watch(opened)
        return opened

    return type(f"Watched{kind.__name__}", (kind,), {"_new_conn": open_socket})


class Session(requests.Session):
    """Reads nothing from the environment, nor ~/.netrc: what it may use is handed to it; and follows no redirect.

    Not even so far as `requests` does when told not to: it reads the whole body of such an answer, however long.
    """

    def __init__(self, call: Call) -> None:
        """Whatever is opened is told to `call`."""
        super().__init__()
        self.trust_env = False
        for scheme in ("http://", "https://"):
            self.mount(scheme, Adapter(call))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere."""
