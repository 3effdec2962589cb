"""What happens in folders, told by the kernel (inotify(7)), which Python has no words for."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_ONLYDIR = 0x01000000
"""sys/inotify.h"""

CHANGES = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
"""A file was written, came or went, or the folder itself did."""

BUFFER = 1 << 16
"""Bytes read at once."""


class Watcher:
    """Tells by its descriptor that something changed in folders; what, is for who looks at them anew."""

    def __init__(self) -> None:
        """Open it; raises OSError, as where a user's limit of instances is reached."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")

    def fileno(self) -> int:
        """For select."""
        return self._descriptor

    def watch(self, folder: Path) -> bool:
        """Watch a folder, which may be watched already; False where it is not there. Raises OSError."""
        result = self._libc.inotify_add_watch(
            self._descriptor, os.fsencode(folder), ctypes.c_uint32(CHANGES | IN_ONLYDIR)
        )
        if result < 0 and ctypes.get_errno() in (errno.ENOENT, errno.ENOTDIR):
            return False
        self._checked(result, f"inotify_add_watch({folder})")
        return True

    def drain(self) -> None:
        """Take what was told so far."""
        try:
            while os.read(self._descriptor, BUFFER):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Watch no more."""
        os.close(self._descriptor)

    @staticmethod
    def _checked(result: int, tried: str) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{os.strerror(number)}: {tried}")
        return result
