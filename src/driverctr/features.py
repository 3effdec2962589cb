"""What Node Feature Discovery labels this node with while our driver serves: a file of the folder that it reads.

Format: its "Customization guide", local feature source (a label a line, `#` before comments, files whose name begins
with a dot are left out, so that others can be renamed into place).
"""

import re
import time
from collections.abc import Mapping
from pathlib import Path

from driverctr import files
from driverctr.log import Log
from driverctr.paths import FEATURES_DIR, Paths
from driverctr.records import frozen
from driverctr.versions import DriverVersion

NAME = "driverctr"
"""Of our file there."""

OURS = "feature.node.kubernetes.io/nvidia-driver"
"""Before what GPU Feature Discovery has no name for; NFD takes labels below this domain whatever its settings."""

LONGEST = 63
"""Letters of a label's value (Kubernetes, "Labels and Selectors")."""

LIFE = 900.0
"""Seconds after which NFD believes a file no more that nobody has written anew: a node that lost its power while the
driver served boots with the file, as it lies on disk, and maybe without us."""

FRESH = 600.0
"""Seconds a file must be believed for at least; a look that finds less writes it anew. Two looks are a minute apart."""

EXPIRY = "# +expiry-time="
"""Before a moment of RFC 3339, after which NFD leaves out what follows."""


@frozen
class Features:
    """The labels of a driver, and the file to write them to: None where no folder for it is there."""

    labels: Mapping[str, str]
    file: Path | None

    def publish(self, log: Log) -> None:
        """Say so until LIFE is over; what cannot be written is told, and no reason to fail a driver that serves."""
        if self.file is None:
            return
        try:
            files.write_atomic(self.file, self._content(time.time()))
        except OSError as error:
            log.warning(f"no labels for Node Feature Discovery: {self.file} could not be written: {error.strerror}")

    def refresh(self, log: Log) -> None:
        """Write it anew where its time is short, the clock was set, or it is gone."""
        if self.file is not None and not FRESH <= expiry(self.file) - time.time() <= LIFE:
            self.publish(log)

    def _content(self, now: float) -> str:
        lines = ["# Written by driverctr while its driver serves.", f"{EXPIRY}{_moment(now + LIFE)}"]
        return "".join(f"{line}\n" for line in (*lines, *(f"{name}={value}" for name, value in self.labels.items())))


NO_FEATURES = Features({}, None)
"""Of a node that has no driver of ours yet, or nobody who labels it."""


def expiry(file: Path) -> float:
    """Until when a file of ours is believed, in seconds since the epoch; 0 where it is not there or does not tell."""
    import calendar

    found = re.search(rf"^{re.escape(EXPIRY)}(\S+)$", files.read_text(file) or "", re.MULTILINE)
    try:
        return float(calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%SZ"))) if found else 0.0
    except ValueError:
        return 0.0


def place(paths: Paths, folder: Path = Path(FEATURES_DIR)) -> Path | None:
    """Where our file lies, or would; None where the folder is not there: nobody mounted it."""
    found = paths.root / folder.relative_to("/")
    return found / NAME if found.is_dir() else None


def of_driver(version: str, module_type: str, kernel_release: str, cuda_version: str, file: Path | None) -> Features:
    """What a driver's file says.

    The names below nvidia.com, those it calls deprecated too, and an empty revision where a version has none, are those
    of GPU Feature Discovery (NVIDIA/k8s-device-plugin, "Generated Labels"): where it runs too, both say the same.
    `cuda_version` ("12.2") is the newest CUDA that the driver's libcuda serves, "" where that is not known.
    """
    major, minor, revision = [*version.removesuffix("-grid").split("."), ""][:3]
    of_nvidia = {
        "driver-version.full": version,
        "driver-version.major": major,
        "driver-version.minor": minor,
        "driver-version.revision": revision,
        "driver.major": major,
        "driver.minor": minor,
        "driver.rev": revision,
    }
    if cuda_version:
        cuda_major, _, cuda_minor = cuda_version.partition(".")
        of_nvidia |= {
            "runtime-version.full": cuda_version,
            "runtime-version.major": cuda_major,
            "runtime-version.minor": cuda_minor,
            "runtime.major": cuda_major,
            "runtime.minor": cuda_minor,
        }
    of_ours = {
        "branch": str(DriverVersion(version).branch),
        "module-type": module_type,
        "kernel": kernel_release,
    }
    labels = {f"nvidia.com/cuda.{name}": value for name, value in of_nvidia.items()}
    labels |= {f"{OURS}.{name}": value for name, value in of_ours.items()}
    return Features({name: as_label(value) for name, value in labels.items()}, file)


def as_label(value: str) -> str:
    """A value that Kubernetes takes: letters, digits and `-_.` between two of the former, or nothing."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", value).strip("-_.")[:LONGEST].rstrip("-_.")


def withdraw(file: Path | None, log: Log) -> None:
    """The node has no driver of ours any more, or not yet; what cannot be removed is told, and expires."""
    if file is None:
        return
    try:
        files.remove(file, *file.parent.glob(f".{NAME}.*{files.PARTIAL}"))
    except OSError as error:
        log.warning(f"labels for Node Feature Discovery: {file} could not be removed: {error.strerror}")


def _moment(seconds: float) -> str:
    """As RFC 3339 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
