"""A /dev/log of our own: some daemons tell only syslog why they fail, and a container has none."""

import contextlib
import re
from pathlib import Path

from driverctr.deferred import socket
from driverctr.mounts.syscalls import MS_BIND, Syscalls

MESSAGE_LIMIT = 8192


class Syslog:
    """Receives what libc's syslog(3) sends; readable in a selector, never waited upon."""

    def __init__(self, path: Path, own_folder: Path) -> None:
        """Nothing is opened yet; `own_folder` serves where the host's syslog is mounted at `path`."""
        self.path = path
        self.own_folder = own_folder
        self._socket: socket.socket | None = None
        self._covered: Path | None = None

    def open(self) -> None:
        """Listen; where something is at `path` already, cover it in our mount namespace. Raises OSError."""
        if self._socket is not None:
            return
        taken = self.path.exists() or self.path.is_symlink()
        cover = self.own_folder / "log"
        if taken and cover.exists() and cover.samefile(self.path):
            Syscalls().umount(self.path)  # that of a start that was killed: nothing can be mounted on it
        cover.unlink(missing_ok=True)
        place = cover if taken else self.path
        place.parent.mkdir(parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(place))
            place.chmod(0o666)
            if taken:
                Syscalls().mount(place, self.path, MS_BIND)
                self._covered = place
        except BaseException:
            listener.close()
            place.unlink(missing_ok=True)
            raise
        self._socket = listener

    @property
    def is_open(self) -> bool:
        """Whether we listen."""
        return self._socket is not None

    def fileno(self) -> int:
        """For a selector; only while open."""
        assert self._socket is not None
        return self._socket.fileno()

    def read(self) -> list[str]:
        """The messages that have arrived, without priority and time stamp (RFC 3164, as glibc writes it)."""
        messages: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while self._socket is not None:
                text = self._socket.recv(MESSAGE_LIMIT).decode(errors="replace").rstrip("\0\n")
                messages.append(re.sub(r"^<\d+>(\w{3} [ \d]\d \d\d:\d\d:\d\d )?", "", text))
        return messages

    def close(self) -> None:
        """Stop listening and take the socket, or the cover, away; raises OSError."""
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        if self._covered is not None:
            Syscalls().umount(self.path)
        (self._covered or self.path).unlink(missing_ok=True)
        self._covered = None
