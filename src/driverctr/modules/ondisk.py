"""The provider of sets that lie on disk, in the image or mounted: `<folder>/<kernel>/<driver>-<type>/`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from driverctr import hashing
from driverctr.errors import Code, DriverError
from driverctr.hashing import Hashes
from driverctr.modules import ModuleFile, ModuleSet, Wish, elf, read_manifest
from driverctr.records import frozen

DEFAULT_FOLDER = Path(hashing.DEFAULT_FOLDER)

MODVERSIONS = "modversions"
"""The word of vermagic for a kernel that checks the version of each symbol a module uses (linux/vermagic.h)."""


def set_folder(folder: Path, wish: Wish) -> Path:
    """Where a set lies below the folder of all sets."""
    return folder / wish.kernel_release / f"{wish.driver_version}-{wish.module_type}"


@frozen
class OnDisk:
    """Finds sets on disk; what they hold is believed only after `verify`."""

    folder: Path = DEFAULT_FOLDER
    name: str = "on disk"

    def find(self, wish: Wish) -> ModuleSet:
        """The wished set, by its manifest alone.

        Raises DriverError (no-modules, wrong-kernel) with the field that differs, or with what there is instead.
        """
        folder = set_folder(self.folder, wish)
        if not folder.is_dir():
            raise DriverError(Code.NO_MODULES, f"{self.folder} has no {wish}; it has: {self._present()}")
        found = read_manifest(folder)
        check_described(found, wish)
        return found

    def _present(self) -> str:
        sets = sorted(f"{path.parent.name}/{path.name}" for path in self.folder.glob("*/*-*") if path.is_dir())
        return ", ".join(sets[:5]) + (f" and {len(sets) - 5} more" if len(sets) > 5 else "") or "nothing"


def check_described(found: ModuleSet, wish: Wish) -> None:
    """Does a set's description say what its place says? Raises DriverError (no-modules, wrong-kernel)."""
    for field in ("kernel_release", "driver_version", "module_type"):
        if getattr(found, field) != getattr(wish, field):
            raise DriverError(
                Code.NO_MODULES,
                f"{found.folder} says {field} {getattr(found, field)}, its place says {getattr(wish, field)}",
            )
    if not found.modules:
        raise DriverError(Code.NO_MODULES, f"{found.folder} names no modules")
    for name, module in found.modules.items():
        if module.kernel_release != wish.kernel_release:
            raise DriverError(
                Code.WRONG_KERNEL,
                f"{name} was built for kernel {module.kernel_release or 'unknown'} (vermagic), "
                f"not for {wish.kernel_release}",
                "Give modules built for this kernel (`nvidia-driver build --kernel`), or let `init` build them",
            )


def describe_other_build(found: ModuleSet, version: str) -> str:
    """That a set was made for another build of its kernel than `version` (`uname -v`); "" where not, or not known.

    Where each module carries the versions of the symbols it uses, the kernel compares them as it loads it. Raises
    DriverError (wrong-kernel) where nothing would tell the difference (kernel/module/version.c, same_magic).
    """
    if not version or not found.kernel_version or found.kernel_version == version:
        return ""
    told = (
        f"{found.folder} was made for the build `{found.kernel_version}` of {found.kernel_release}, this kernel is "
        f"`{version}`"
    )
    if not all(MODVERSIONS in module.vermagic.split() for module in found.modules.values()):
        raise DriverError(
            Code.WRONG_KERNEL,
            f"{told}, and it checks no symbol versions: what differs would show only when it fails",
            "Give modules made for this very build of the kernel",
        )
    return f"{told}: whether they fit, the versions of its symbols tell when they are loaded"


def check_complete(found: ModuleSet, names: Sequence[str]) -> None:
    """Compare a set with the modules that are wanted of it; raises DriverError (no-modules)."""
    if lacking := [name for name in names if name not in found.modules]:
        raise DriverError(
            Code.NO_MODULES,
            f"{found.folder} has no {', '.join(lacking)}",
            "Give a whole set of modules, or let `init` build one",
        )


def verify(found: ModuleSet, meanwhile: Callable[[], None], hashes: Hashes | None = None) -> None:
    """Compare each file with its manifest, and do `meanwhile` beside it; `hashes` may have been begun before.

    Raises DriverError (no-modules, wrong-architecture) for the first that is not the file described.
    """
    hashes = hashes or Hashes()
    hashes.begin(module.file for module in found.modules.values())
    meanwhile()
    for module in found.modules.values():
        check_file(module, hashes)


def check_file(module: ModuleFile, hashes: Hashes) -> None:
    """Compare a file with its entry and the processor; raises DriverError (no-modules, wrong-architecture)."""
    check_digest(module, hashes)
    try:
        machine, here = elf.read(module.file).machine, os.uname().machine
    except OSError as error:
        raise DriverError(Code.NO_MODULES, f"{module.file}: {error.strerror}") from error
    if machine != here:
        raise DriverError(
            Code.WRONG_ARCHITECTURE,
            f"{module.file} is for {machine}, this node is {here}",
            f"Give modules, and an image, for {here}",
        )


def check_digest(module: ModuleFile, hashes: Hashes) -> None:
    """Compare a file with its entry in the manifest; raises DriverError (no-modules)."""
    try:
        digest = hashes.of(module.file)
    except OSError as error:
        raise DriverError(Code.NO_MODULES, f"{module.file}: {error.strerror}") from error
    if digest != module.sha256:
        raise DriverError(
            Code.NO_MODULES, f"{module.file} is not the file its manifest describes (sha256 {digest[:12]}...)"
        )
