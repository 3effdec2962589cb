"""Run-files for unit tests: the head of the stand-in archive before a small tar, and a server that can break off."""

import contextlib
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
STAND_IN = REPOSITORY / "images/stand-in-runfile"
VERSION = "535.309.01"
MACHINE = os.uname().machine
MANIFEST = f"""NVIDIA Accelerated Graphics Driver
{VERSION}

nvidia


kernel
kernel/precompiled
libcuda.so.{VERSION} 0755 CUDA_LIB NATIVE /
libcuda.so.1 0000 CUDA_SYMLINK NATIVE / libcuda.so.{VERSION}
libnvidia-ml.so.{VERSION} 0755 UTILITY_LIB NATIVE
libnvidia-ml.so.1 0000 UTILITY_LIB_SYMLINK NATIVE ABSOLUTE/libnvidia-ml.so.{VERSION}
./32/libcuda.so.{VERSION} 0755 CUDA_LIB COMPAT32 /
nvidia-smi 0755 UTILITY_BINARY
nvidia-persistenced 0755 UTILITY_BINARY
nvidia-modprobe 0755 NVIDIA_MODPROBE /usr/bin
nvidia-installer 0755 INSTALLER_BINARY
nvidia_drv.so 0755 XMODULE_SHARED_LIB drivers/
nvidia.icd 0644 CUDA_ICD
nvidia-suspend.service 0644 SYSTEMD_UNIT
kernel/Makefile 0644 KERNEL_MODULE_SRC INHERIT_PATH_DEPTH:1
LICENSE 0644 DOCUMENTATION
"""
FILES = {
    "nvidia.icd": f"libnvidia-opencl.so.{VERSION}\n",
    "nvidia-suspend.service": "[Service]\n",
    "LICENSE": "as NVIDIA says\n",
    "firmware/gsp_ga10x.bin": "firmware",
    "supported-gpus/supported-gpus.json": '{"chips": []}',
    "kernel/Makefile": "modules:\n",
    "kernel/dkms.conf": "PACKAGE_NAME=nvidia\n",
    "kernel-open/Makefile": "modules:\n",
    "32/libcuda.so." + VERSION: "for 32 bits",
}
PROGRAMS = ("nvidia-smi", "nvidia-persistenced", "nvidia-modprobe", "nvidia_drv.so", f"libcuda.so.{VERSION}")
# What makeself does with a head: it is written to count its lines, and again with the sums of what follows.
PACK = """
. "$HEAD"
SKIP=$(wc -l < "$archname")
CRCsum=$(cksum < "$PAYLOAD" | cut -d' ' -f1)
MD5sum=$(md5sum < "$PAYLOAD" | cut -b-32)
. "$HEAD"
cat "$PAYLOAD" >> "$archname"
"""


def fill(content: Path, libraries: str) -> None:
    """Lay out a small driver as NVIDIA's archive has it; one link is absolute, into the folder of libraries."""
    files = {**FILES, ".manifest": MANIFEST.replace("ABSOLUTE", libraries)}
    files |= {name: name for name in (*PROGRAMS, f"libnvidia-ml.so.{VERSION}")}
    files["nvidia-installer"] = (STAND_IN / "nvidia-installer.sh").read_text()
    for name, text in files.items():
        (content / name).parent.mkdir(parents=True, exist_ok=True)
        (content / name).write_text(text)
    (content / "nvidia-installer").chmod(0o755)


def pack(content: Path, to: Path, version: str = VERSION, machine: str = MACHINE, size_kib: int = 1) -> Path:
    """Make a run-file of a folder."""
    payload = to.with_suffix(".tar.gz")
    with tarfile.open(payload, "w:gz") as archive:
        archive.add(content, ".")
    told = {
        "archname": str(to),
        "archdirname": f"NVIDIA-Linux-{machine}-{version}",
        "HEAD": str(STAND_IN / "header.sh"),
        "LABEL": "NVIDIA Accelerated Graphics Driver",
        "PAYLOAD": str(payload),
        "RUNFILE_ARCH": machine,
        "RUNFILE_VERSION": version,
        "SCRIPT": "./nvidia-installer",
        "SKIP": "0",
        "USIZE": str(size_kib),
    }
    subprocess.run(["sh", "-euc", PACK], env={**os.environ, **told}, check=True)
    return to


class Server(ThreadingHTTPServer):
    """Serves one file; `answers` say how each request in turn is answered, the last one again and again."""

    daemon_threads = True

    def __init__(self, content: bytes, *answers: "Answer") -> None:
        """Listen on a port of its own."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.tag = '"one"'
        self.answers = list(answers)
        self.files: dict[str, bytes] = {}
        self.ranges: list[str] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no error of a test."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        """Answer as told."""
        server = self.server
        server.paths.append(self.path)
        if self.path.endswith(".sha256sum"):
            found = server.files.get("sum")
            self.begin(404 if found is None else 200, found or b"")
            self.wfile.write(found or b"")
            return
        server.ranges.append(self.headers.get("Range", ""))
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        answer(self)

    def begin(self, status: int, content: bytes, start: int = 0) -> None:
        """Send the head of an answer with these bytes."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{start + len(content)}")
        if self.server.tag and status < 300:
            self.send_header("ETag", self.server.tag)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """A test's output is its own."""


Answer = Callable[[Handler], None]


def whole(handler: Handler, stop_after: int | None = None) -> None:
    """The file, or the range asked for where it is still the same file; broken off after some bytes."""
    content, start, status = handler.server.content, 0, 200
    if handler.headers.get("Range") and handler.headers.get("If-Range") == handler.server.tag:
        start, status = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
    if status == 206 and start >= len(content):
        refuse(416)(handler)
        return
    handler.begin(status, content[start:], start)
    handler.wfile.write(content[start:][:stop_after])


def broken_off(after: int) -> Answer:
    """An answer that ends too early."""
    return lambda handler: whole(handler, after)


def refuse(status: int) -> Answer:
    """An answer without the file."""
    return lambda handler: handler.begin(status, b"")


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
