"""What most starts do not need: modules of Python's own are imported, patterns compiled, when they are first used.

`from driverctr.deferred import shutil` stands for `import shutil`. What a warm start imports is most of what it takes.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module


class Deferred:
    """Stands for a module until something of it is used."""

    def __init__(self, name: str) -> None:
        """Nothing is imported yet."""
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """What the module has by that name."""
        return getattr(import_module(self._name), attribute)


TYPE_CHECKING = False
if TYPE_CHECKING:
    import filecmp
    import graphlib
    import hashlib
    import mmap
    import selectors
    import shlex
    import shutil
    import socket
    import tempfile
    import threading
    from importlib.machinery import ModuleSpec
    from typing import Any, AnyStr
else:
    # mypy knows them by the imports above.
    filecmp = Deferred("filecmp")
    graphlib = Deferred("graphlib")
    hashlib = Deferred("hashlib")
    mmap = Deferred("mmap")
    selectors = Deferred("selectors")
    shlex = Deferred("shlex")
    shutil = Deferred("shutil")
    socket = Deferred("socket")
    tempfile = Deferred("tempfile")
    threading = Deferred("threading")

__all__ = [
    "filecmp",
    "graphlib",
    "hashlib",
    "mmap",
    "selectors",
    "shlex",
    "shutil",
    "socket",
    "tempfile",
    "threading",
]

OF_OTHERS = ("inspect", "ipaddress")
"""What Python's own modules import and seldom use: dataclasses the one, urllib.parse (of pathlib) the other."""


class _Pattern:
    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __getattr__(self, attribute: str) -> Any:
        return getattr(re.compile(*self._arguments), attribute)


def pattern(text: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """What re.compile makes, but not before it is used; `re` keeps what it compiled."""
    made: Any = _Pattern(text, flags)
    return made  # type: ignore[no-any-return]  # one in all that is asked of it


class _Finder:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in OF_OTHERS:
            return None
        from importlib.machinery import PathFinder
        from importlib.util import LazyLoader

        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def defer_of_others() -> None:
    """Have those loaded at their first use too; only before a second thread runs (importlib.util.LazyLoader).

    A second `import inspect`, as in `sh` and `cryptography`, is a use, and Python 3.11 drops what is raised in it:
    signals must be held there, or `load_of_others` called before.
    """
    sys.meta_path.insert(0, _Finder)


def load_of_others() -> None:
    """Load now what is still deferred of those; signals must be held."""
    for name in OF_OTHERS:
        import_module(name)
