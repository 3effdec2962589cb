"""A real process to which the kernel answers as Linux 4.18 would: run with `python -m`, it prints what it found.

seccomp(2) filters have ENOSYS returned for the system calls that came later.
"""

import ctypes
import errno
import os
import platform
import struct
import subprocess
import time

from driverctr import node, pidfd
from driverctr.mounts.syscalls import NR_MOVE_MOUNT, NR_OPEN_TREE, Syscalls
from driverctr.run import wait_for_end

LATER = (424, 434, NR_OPEN_TREE, NR_MOVE_MOUNT)
"""pidfd_send_signal, pidfd_open, and the mount calls (asm-generic/unistd.h)."""

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
"""linux/prctl.h, linux/seccomp.h"""

LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000
"""linux/filter.h, linux/seccomp.h"""


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forget_later_calls() -> None:
    """From now on they are not there, for this process and its children."""
    rules = [struct.pack("HBBI", LOAD_NUMBER, 0, 0, 0)]
    for place, number in enumerate(LATER):
        rules.append(struct.pack("HBBI", JUMP_IF_EQUAL, len(LATER) - place, 0, number))
    rules.append(struct.pack("HBBI", RETURN, 0, 0, ALLOW))
    rules.append(struct.pack("HBBI", RETURN, 0, 0, FAIL_WITH | errno.ENOSYS))
    program = Program(len(rules), b"".join(rules))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    assert platform.machine() in ("x86_64", "aarch64")
    forget_later_calls()
    print("lacks", *(words.split()[0] for words in node.missing_calls(Syscalls())))
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        descriptor = pidfd.opened(child.pid)
        print("lives", wait_for_end(child.pid, 0.2))
        began = time.monotonic()
        pidfd.send(descriptor, child.pid, 15)
        print("ended", wait_for_end(child.pid, 5), time.monotonic() - began < 1)
        os.close(descriptor)
    print("status", child.returncode)
