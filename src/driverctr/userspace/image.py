"""What the image holds: the driver version of its userspace and the module sources it carries."""

import json
from enum import StrEnum
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.records import frozen
from driverctr.versions import DriverVersion

DESCRIPTION = Path("usr/share/driverctr/image.json")
"""Below the root; written when the image was built."""

REBUILD = "The image is incomplete: build it from the project's Dockerfile"


class ModuleType(StrEnum):
    """Which of NVIDIA's two kernel module sources."""

    PROPRIETARY = "proprietary"
    OPEN = "open"


class Origin(StrEnum):
    """Where the driver of the image came from."""

    RUNFILE = "runfile"
    PACKAGES = "packages"


@frozen
class Source:
    """A module source tree; the digest covers the tree as it was when the image was built."""

    type: ModuleType
    version: DriverVersion
    path: Path
    sha256: str


@frozen
class Image:
    """The image we run from.

    `distribution` and `distribution_version` are the ID and VERSION_ID of os-release(5); `kernel_release` and
    `module_type` are those of the modules baked into a precompiled image; `cuda_version` ("12.2") is what its libcuda
    serves at most, "" where that could not be asked. The last five are absent from older images.
    """

    driver_version: DriverVersion
    sources: tuple[Source, ...]
    distribution: str
    architecture: str
    distribution_version: str = ""
    origin: Origin = Origin.PACKAGES
    kernel_release: str = ""
    module_type: str = ""
    cuda_version: str = ""

    @property
    def platform(self) -> str:
        """Where a userspace of this image fits: its distribution and architecture."""
        return f"{self.distribution}-{self.architecture}"

    def check_source(self, source: Source) -> None:
        """Raise DriverError (no-modules) where a precompiled image left out the source that its modules are of."""
        if self.kernel_release and not source.path.is_dir():
            raise DriverError(
                Code.NO_MODULES,
                f"this image is precompiled for kernel {self.kernel_release}: it has no module source and no compiler",
                "Use an image that builds, or the one precompiled for this kernel",
            )

    def source(self, version: DriverVersion | str, kind: ModuleType | str) -> Source:
        """The source of this version and type; raises DriverError (no-modules) naming what the image has."""
        for source in self.sources:
            if source.version.text == str(version) and source.type == kind:
                return source
        has = ", ".join(f"{source.version} {source.type}" for source in self.sources) or "none"
        raise DriverError(
            Code.NO_MODULES,
            f"the image has no {kind} module source of driver {version}; it has: {has}",
            "Choose one of these by KERNEL_MODULE_TYPE, or use an image of that driver version",
        )


def read(root: Path = Path("/")) -> Image:
    """Read the description; raises DriverError (no-modules) where it is missing or not what we expect."""
    path = root / DESCRIPTION
    try:
        document = json.loads(path.read_text())
        return Image(
            driver_version=DriverVersion(document["driver_version"]),
            sources=tuple(
                Source(
                    type=ModuleType(entry["type"]),
                    version=DriverVersion(entry["version"]),
                    path=root / str(entry["path"]).lstrip("/"),
                    sha256=entry["sha256"],
                )
                for entry in document["sources"]
            ),
            distribution=document["distribution"],
            architecture=document["architecture"],
            distribution_version=str(document.get("distribution_version", "")),
            origin=Origin(document.get("origin", Origin.PACKAGES)),
            kernel_release=str(document.get("kernel_release", "")),
            module_type=str(document.get("module_type", "")),
            cuda_version=str(document.get("cuda_version", "")),
        )
    except OSError as error:
        raise DriverError(
            Code.NO_MODULES, f"the image's description {path} cannot be read: {error.strerror}", REBUILD
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DriverError(
            Code.NO_MODULES,
            f"the image's description {path} is not as expected: {type(error).__name__}: {error}",
            REBUILD,
        ) from error
