"""The small files by which neighbours learn whether the driver serves.

Formats: the operator's startup probe and validator, NVIDIA's driver container, k8s-driver-manager.
Every function takes the folder shared with the host (/run/nvidia), may be repeated, and raises DriverError (node-file).
"""

import errno
from pathlib import Path

from driverctr import files
from driverctr.errors import Code, DriverError

DAEMONS = "validations/.driver-daemons-status"
"""`NotReady` or `Ready`: the operator's probe refuses while it exists and is not `Ready`."""

CONTAINER = "validations/.driver-ctr-ready"
"""There while the driver serves: the validator and the peermem side-car wait for it."""

DIGEST = "nvidia-driver.state"
"""The configuration that is installed: k8s-driver-manager skips its uninstall if it is the wished one."""


def withdraw(run_dir: Path, *, digest: bool) -> None:
    """Remove what claims a driver that serves: the container's marker, then the daemons', with `digest` that too.

    At start the digest goes, as half an install must not be taken for the whole. At stop it stays: if the modules
    stay too, because they are in use, k8s-driver-manager must not evict their users for the same configuration.
    """
    for name in (CONTAINER, DAEMONS, *((DIGEST,) if digest else ())):
        _remove(run_dir / name)


def begin(run_dir: Path) -> None:
    """First at a start: nothing that an earlier one, or the operator's probe, left is believed; the digest may be true.

    `NotReady` keeps the probe from saying ready for a driver that was loaded before.
    """
    withdraw(run_dir, digest=False)
    write_daemons_status(run_dir, ready=False)


def withdraw_container(run_dir: Path) -> None:
    """Remove the container's marker alone: the kernel check failed."""
    _remove(run_dir / CONTAINER)


def write_daemons_status(run_dir: Path, *, ready: bool) -> None:
    """Say whether all daemons run."""
    _write(run_dir / DAEMONS, "Ready\n" if ready else "NotReady\n")


def write_ready(run_dir: Path, *, gds: bool, gdrcopy: bool, rdma: bool) -> None:
    """Say that the driver serves, and what it was asked to bring along; the validator checks each by its module.

    Exactly the three lines of the operator's startup probe, which the validator reads as YAML booleans.
    """
    values = {"GDRCOPY_ENABLED": gdrcopy, "GDS_ENABLED": gds, "GPU_DIRECT_RDMA_ENABLED": rdma}
    _write(run_dir / CONTAINER, "".join(f"{name}: {str(value).lower()}\n" for name, value in values.items()))


def write_digest(run_dir: Path, digest: str) -> None:
    """Say which configuration is installed, last of all; an empty digest (no operator) leaves no file."""
    if digest:
        _write(run_dir / DIGEST, f"{digest}\n")
    else:
        _remove(run_dir / DIGEST)


def _write(path: Path, content: str) -> None:
    try:
        files.write_atomic(path, content)
    except OSError as error:
        raise _failed(path, "written", error) from error


def _remove(path: Path) -> None:
    try:
        files.remove(path)
    except NotADirectoryError:
        return
    except OSError as error:
        raise _failed(path, "removed", error) from error


def _failed(path: Path, what: str, error: OSError) -> DriverError:
    return DriverError(
        Code.NO_SPACE if error.errno == errno.ENOSPC else Code.NODE_FILE,
        f"{path} could not be {what}: {error.strerror}",
        f"Make {path.parent} a writable folder that holds nothing else under this name",
    )
