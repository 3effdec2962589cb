"""Character devices as the kernel registers them, and the minors that NVIDIA gives out itself."""

from collections.abc import Iterator

from driverctr.files import read_text
from driverctr.paths import Paths

MINOR_CONTROL = 255
MINOR_MODESET = 254
"""NVIDIA's nv-chardev-numbers.h: the control device and nvidia-modeset share the core module's major."""


def read(paths: Paths) -> Iterator[tuple[int, str]]:
    """Each major with a name it is registered under, in the order of /proc/devices (proc_devices(5))."""
    for line in (read_text(paths.proc / "devices") or "").splitlines():
        if line.startswith("Block"):
            break
        number, _, name = line.strip().partition(" ")
        if number.isdigit():
            yield int(number), name
