"""The host's hook after the installation of a kernel: a script of ours in a folder that the user mounted.

Reference C: NVIDIA's container writes the same file where the folder is there, and removes it at its stop. A start that
was killed leaves it. That is harmless: the script looks for a living container itself, and the next start replaces it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driverctr import files
from driverctr.errors import code_of
from driverctr.log import Log
from driverctr.paths import Paths

SCRIPT = Path(__file__).with_name("kernelhook.sh")
OURS = "# Written by driverctr,"
"""The second line of the script begins so: what others put there is theirs."""


@contextmanager
def installed(paths: Paths, log: Log) -> Iterator[None]:
    """Have the hook in its place for the length of the block; without its folder there is none.

    A hook that cannot be written or removed is said: the driver serves without it.
    """
    try:
        if paths.kernel_hook.parent.is_dir():
            files.write_atomic(paths.kernel_hook, SCRIPT.read_bytes(), mode=0o755)
            log.info(f"kernels installed on the host are told to us by {paths.kernel_hook}")
    except OSError as error:
        log.warning(
            f"the hook {paths.kernel_hook} could not be written: {error.strerror or error}", code=code_of(error)
        )
    try:
        yield
    finally:
        remove(paths, log)


def remove(paths: Paths, log: Log) -> None:
    """Take the hook away, also one that a killed start has left."""
    try:
        files.remove(*paths.kernel_hook.parent.glob(f".{paths.kernel_hook.name}.*{files.PARTIAL}"))
        if OURS in (files.read_text(paths.kernel_hook) or ""):
            files.remove(paths.kernel_hook)
    except OSError as error:
        log.warning(
            f"the hook {paths.kernel_hook} could not be removed: {error.strerror or error}", code=code_of(error)
        )
