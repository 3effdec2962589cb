"""Runs in a container of harness/rpmbase: serves /repositories, calls our Dnf as a test's wish says, tells what came.

The wish is JSON in the first argument: `way` (fetch, from_folder, from_archive), `files` to write first, `ladder`.
"""

import hashlib
import json
import re
import ssl
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

from driverctr.distros import HeaderPackages, Repositories, Rung
from driverctr.distros.rhel import Rhel
from driverctr.errors import DriverError
from driverctr.log import Log
from driverctr.packages import Sources
from driverctr.packages.dnf import Dnf
from driverctr.run import Runner

HTTP, HTTPS, EXPIRED = 8000, 8443, 8444
OWNED_BY_THE_IMAGE = ("etc", "var/lib/rpm", "var/lib/dnf", "var/cache/dnf", "var/log", "usr/lib/sysimage")
SCRATCH, INTO = Path("/tmp/scratch"), Path("/tmp/into")


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what it has served, by path."""

    served: list[str] = []  # noqa: RUF012  # one for all requests, each of which is an instance

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Keep it instead of printing it."""
        if int(code) == 200:
            self.served.append(self.path)


def serve(port: int, certificate: str = "") -> None:
    """Serve the repositories beside us, by TLS if there is a certificate (with its key in the same file)."""
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory="/repositories"))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def state() -> Iterator[tuple[str, str]]:
    """Every file that is the image's, with a digest of its content."""
    for name in OWNED_BY_THE_IMAGE:
        for file in sorted(Path("/", name).rglob("*")):
            if file.is_file() and not file.is_symlink():
                yield str(file), hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    """Do what the wish says, and print what came of it."""
    wish = json.loads(sys.argv[1])
    for name, text in wish["files"].items():
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if wish["serve"]:
        serve(HTTP)
        serve(HTTPS, "/repositories/tls.pem")
        serve(EXPIRED, "/repositories/expired.pem")
    log = Log(stream=StringIO())
    sources = Sources(
        Rhel.certificates,
        defaults=wish["defaults"],
        folder=Path("/repositories") / wish["folder"],
        archive=wish["archive"],
    )
    ladder = tuple(Rung(releasever, tuple(names)) for releasever, names in wish["ladder"])
    dnf = Dnf(Runner(log=log), SCRATCH, lambda seconds: None, log, sources, Repositories(ladder))
    before = dict(state())
    told: dict[str, Any] = {"code": "", "message": "", "names": []}
    try:
        way = getattr(dnf, wish["way"])
        told["names"] = way(HeaderPackages(wish["package"], re.compile(r"(?!)")), INTO)
    except DriverError as error:
        told |= {"code": error.code.value, "message": error.message, "remedy": error.remedy}
    assert isinstance(log.stream, StringIO)
    told |= {
        "unpacked": sorted(
            str(file.relative_to(INTO)) for file in INTO.rglob("*") if file.is_symlink() or file.is_file()
        ),
        "changed": sorted(name for name, _ in set(before.items()) ^ set(state())),
        "served": Handler.served,
        "log": log.stream.getvalue(),
    }
    print(json.dumps(told))


main()
