"""Package repositories served by HTTP on this machine's loopback, where a build on the host's network finds them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness import cache

# Fixed, since package sources that name it stay in the image; one process serves at a time.
ADDRESS = ("127.0.0.1", 47530)
URL = f"http://{ADDRESS[0]}:{ADDRESS[1]}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the one who fetches does."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def serving(folder: Path | None) -> Iterator[None]:
    """Serve a folder at URL until the block's end; nothing to serve is no error. Waits while another process serves."""
    if folder is None:
        yield
        return
    with cache.lock("serving"), _Server(ADDRESS, partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
