"""The metrics in a file of node-exporter's textfile collector: whole or not there, gone after a clean stop."""

import errno
import os
from pathlib import Path

from prometheus_client import generate_latest

from driverctr import files
from driverctr.metrics.families import Registry
from driverctr.status import Phase, Status


def begin(path: Path) -> None:
    """Remove what a process killed while it wrote has left; only under the lock. Raises OSError."""
    files.remove(*path.parent.glob(f".{path.name}.*{files.PARTIAL}"))


def write(path: Path, registry: Registry) -> None:
    """Write it anew; the folder must be there: one we made would be of this container, and nobody's. Raises OSError."""
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    files.write_atomic(path, generate_latest(registry))


def end(path: Path, last: Status) -> None:
    """After a stop that left nothing to tell the file goes; a failure stays to be read. Raises OSError."""
    if last.phase is Phase.STOPPED and not last.failure:
        path.unlink(missing_ok=True)
