"""The provider of sets that lie on disk, in the image or mounted: `<folder>/<kernel>/<driver>-<type>/`."""

from dataclasses import dataclass
from pathlib import Path

from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.modules import ModuleFile, ModuleSet, Wish, read_manifest

DEFAULT_FOLDER = Path("/opt/driverctr/modules")


def set_folder(folder: Path, wish: Wish) -> Path:
    """Where a set lies below the folder of all sets."""
    return folder / wish.kernel_release / f"{wish.driver_version}-{wish.module_type}"


@dataclass(frozen=True)
class OnDisk:
    """Finds sets on disk and believes none of them unchecked."""

    folder: Path = DEFAULT_FOLDER
    name: str = "on disk"

    def find(self, wish: Wish) -> ModuleSet:
        """The wished set, each file compared with its manifest.

        Raises DriverError (no-modules) with the field that differs, or with what there is instead.
        """
        folder = set_folder(self.folder, wish)
        if not folder.is_dir():
            raise DriverError(Code.NO_MODULES, f"{self.folder} has no {wish}; it has: {self._present()}")
        found = read_manifest(folder)
        for field in ("kernel_release", "driver_version", "module_type"):
            if getattr(found, field) != getattr(wish, field):
                raise DriverError(
                    Code.NO_MODULES,
                    f"{folder} says {field} {getattr(found, field)}, its place says {getattr(wish, field)}",
                )
        if not found.modules:
            raise DriverError(Code.NO_MODULES, f"{folder} names no modules")
        for name, module in found.modules.items():
            check_file(name, module, wish.kernel_release)
        return found

    def _present(self) -> str:
        sets = sorted(f"{path.parent.name}/{path.name}" for path in self.folder.glob("*/*-*") if path.is_dir())
        return ", ".join(sets[:5]) + (f" and {len(sets) - 5} more" if len(sets) > 5 else "") or "nothing"


def check_file(name: str, module: ModuleFile, kernel_release: str) -> None:
    """Compare a file with its entry and the kernel; raises DriverError (no-modules)."""
    if module.kernel_release != kernel_release:
        raise DriverError(
            Code.NO_MODULES,
            f"{name} was built for kernel {module.kernel_release or 'unknown'} (vermagic), not for {kernel_release}",
        )
    try:
        digest = files.sha256(module.file)
    except OSError as error:
        raise DriverError(Code.NO_MODULES, f"{module.file}: {error.strerror}") from error
    if digest != module.sha256:
        raise DriverError(
            Code.NO_MODULES, f"{module.file} is not the file its manifest describes (sha256 {digest[:12]}...)"
        )
