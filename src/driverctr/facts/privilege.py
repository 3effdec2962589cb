"""What the kernel lets our process do."""

from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

NEEDED = {
    "SYS_MODULE": 16,
    "SYS_CHROOT": 18,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
    "MKNOD": 27,
}
"""Capabilities and their bits (include/uapi/linux/capability.h): load and unload modules; enter the host's mount
namespace; see other processes' files and roots; mount; make device nodes."""

INITIAL_USER_NAMESPACE = "user:[4026531837]"
"""What /proc/self/ns/user links to outside every user namespace of one's own (include/linux/proc_ns.h)."""


@frozen
class Privilege:
    """Needed capabilities that are missing, None where that cannot be told; and whether all count for this machine.

    In a user namespace of one's own a full set counts for that namespace only (user_namespaces(7)).
    """

    missing: tuple[str, ...] | None
    in_user_namespace: bool


def read(paths: Paths) -> Privilege:
    """What of the needed we hold, and where it counts."""
    held = _effective(paths)
    missing = None if held is None else tuple(name for name, bit in NEEDED.items() if not held >> bit & 1)
    try:
        namespace = str((paths.proc / "self/ns/user").readlink())
    except OSError:
        namespace = INITIAL_USER_NAMESPACE
    return Privilege(missing, namespace != INITIAL_USER_NAMESPACE)


def _effective(paths: Paths) -> int | None:
    """Our own effective set as bits, from CapEff of /proc/self/status (proc_pid_status(5)); None where not told."""
    for line in (read_text(paths.proc / "self/status") or "").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return None
