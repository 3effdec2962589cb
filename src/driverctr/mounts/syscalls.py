"""The mount system calls that Python lacks, with what was tried in each error."""

import ctypes
import errno
import os
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
"""MS_*: linux/mount.h."""

MNT_DETACH = 2
"""sys/mount.h"""

AT_FDCWD = -100
AT_RECURSIVE = 0x8000
"""AT_*: linux/fcntl.h."""

OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 4
"""linux/mount.h"""

NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
"""asm-generic/unistd.h; the same on x86_64 and aarch64, there since Linux 5.2."""

Where = str | Path


class Syscalls:
    """The kernel; a test hands in one that records. Every method raises OSError naming the call.

    errno is ENOSYS for open_tree and move_mount on kernels before 5.2.
    """

    def __init__(self) -> None:
        """Bind to the C library, with errno kept per thread."""
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount(
        self, source: Where | None, target: Where, flags: int, fstype: str | None = None, data: str | None = None
    ) -> None:
        """mount(2): a new mount, a bind, or (without source) a change of propagation."""
        result = self._libc.mount(_bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags), _bytes(data))
        _check(result, f"mount({source}, {target}, {fstype}, {flags:#x})")

    def umount(self, target: Where, flags: int = MNT_DETACH) -> None:
        """umount2(2): take away the uppermost mount on the target."""
        _check(self._libc.umount2(_bytes(target), ctypes.c_int(flags)), f"umount2({target}, {flags})")

    def open_tree(self, path: Where, flags: int) -> int:
        """open_tree(2): a descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy."""
        return _check(
            self._libc.syscall(
                ctypes.c_long(NR_OPEN_TREE), ctypes.c_int(AT_FDCWD), _bytes(path), ctypes.c_uint(flags | os.O_CLOEXEC)
            ),
            f"open_tree({path}, {flags:#x})",
        )

    def lacks_open_tree(self) -> bool:
        """Whether the kernel has no such call; another refusal of it is told where it is used."""
        try:
            os.close(self.open_tree("/", 0))
        except OSError as error:
            return error.errno == errno.ENOSYS
        return False

    def move_mount(self, descriptor: int, target: Where) -> None:
        """move_mount(2): attach the detached tree behind a descriptor to a path."""
        result = self._libc.syscall(
            ctypes.c_long(NR_MOVE_MOUNT),
            ctypes.c_int(descriptor),
            b"",
            ctypes.c_int(AT_FDCWD),
            _bytes(target),
            ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
        )
        _check(result, f"move_mount(a detached tree, {target})")


def _bytes(text: Where | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def _check(result: int, tried: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: {tried}")
    return result
