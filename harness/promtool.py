"""promtool, of Debian's package prometheus, which is fetched and unpacked but not installed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from harness import apt, cache, proc

PACKAGE = "prometheus"
# Seconds: a hundred megabytes are unpacked.
LIMIT_S = 300


def get() -> Path:
    """Return the program; raises HarnessError where the package is not to be had."""
    text = apt.sources()

    def unpack(to: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            (package,) = apt.download([PACKAGE], Path(scratch), text)
            tree = Path(scratch, "tree")
            proc.run(["dpkg-deb", "--extract", package, tree], timeout=LIMIT_S)
            shutil.copy2(tree / "usr/bin/promtool", to)

    return cache.entry("promtool", [text], unpack) / "promtool"
