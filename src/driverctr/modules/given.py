"""The provider that takes modules made elsewhere: unpacked, judged, described; their bytes stay as they were signed."""

import gzip
import lzma
import os
from collections.abc import Callable, Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path

from driverctr.deferred import shutil
from driverctr.errors import Code, DriverError
from driverctr.facts import loading, modules
from driverctr.modules import PEERMEM, ModuleSet, Wish, describe, elf
from driverctr.modules.drafts import DEFAULT_SCRATCH, Draft, publish, scratch_folder, told_if_full
from driverctr.modules.ondisk import set_folder
from driverctr.records import frozen
from driverctr.run import Runner
from driverctr.settings import ModuleType

SUFFIXES = ("", ".gz", ".xz", ".zst")
"""How distributions compress modules (CONFIG_MODULE_COMPRESS_*)."""

LICENCES = {"NVIDIA": ModuleType.PROPRIETARY, "Dual MIT/GPL": ModuleType.OPEN}
"""MODULE_LICENSE of nvidia.ko in NVIDIA's two sources."""

CORE = "nvidia"
MAKE_THEM_ANEW = "Give modules of one driver version and type, made for this kernel, whole and all of them"


@frozen
class Given:
    """Takes the modules in `source`, wherever below it they lie, and publishes them below `folder`.

    `names` are those it must find, and peermem is taken where it is there. Everything is done in `scratch`.
    """

    source: Path
    names: Sequence[str]
    runner: Runner
    folder: Path
    scratch: Path = DEFAULT_SCRATCH

    def find(self, release: str, version: str, module_type: ModuleType) -> ModuleSet:
        """Judge the modules and publish them as a set; for the type `auto` their licence tells which they are.

        Raises DriverError: no-modules, wrong-kernel, other-version, wrong-module-type, wrong-architecture,
        signature-needed, no-space.
        """
        with told_if_full(self.scratch), scratch_folder(self.scratch) as scratch:
            given = self._look()
            files = {name: self._unpack(file, scratch / f"{name}.ko") for name, file in given.items()}
            infos = {name: self._read(file, given[name]) for name, file in files.items()}
            for name, info in infos.items():
                check(name, info, release, version)
            check_signatures(files)
            kind = judge_type(infos[CORE], module_type)
            made = ModuleSet(
                folder=scratch,
                kernel_release=release,
                kernel_version="",
                driver_version=version,
                module_type=kind,
                modules={name: describe(file) for name, file in files.items()},
            )
            return publish(Draft(made, {}), set_folder(self.folder, Wish(release, version, kind)))

    def _look(self) -> Mapping[str, Path]:
        """The one file of each module; raises DriverError (no-modules) where one is missing or not the only one."""
        found = {name: self._files(name) for name in (*self.names, PEERMEM)}
        if lacking := [name for name in self.names if not found[name]]:
            there = sorted(path.name for path in self.source.rglob("*.ko*"))
            raise _refusal(f"{self.source} has no {', '.join(lacking)}; it has: {', '.join(there[:8]) or 'no module'}")
        if several := next((files for files in found.values() if len(files) > 1), None):
            raise _refusal(f"{self.source} has more than one of a module: {', '.join(map(str, several))}")
        return {name: files[0] for name, files in found.items() if files}

    def _files(self, name: str) -> list[Path]:
        """Files of a module by any of the names it may have: modprobe takes - for _ (modprobe(8))."""
        wanted = {f"{spelt}.ko{suffix}" for spelt in (name, modules.kernel_name(name)) for suffix in SUFFIXES}
        return sorted(path for path in self.source.rglob("*.ko*") if path.name in wanted)

    def _unpack(self, file: Path, to: Path) -> Path:
        """The module itself, to the byte; raises DriverError (no-modules) where it is not whole."""
        openers: Mapping[str, Callable[[Path], BufferedIOBase]] = {".gz": gzip.GzipFile, ".xz": lzma.LZMAFile}
        try:
            if file.suffix == ".zst":
                self.runner.run(["zstd", "--quiet", "--decompress", "-o", to, file])
            elif file.suffix in openers:
                with openers[file.suffix](file) as packed, to.open("wb") as out:
                    shutil.copyfileobj(packed, out)
            else:
                shutil.copyfile(file, to)
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise _refusal(f"{file} cannot be unpacked: {error}") from error
        return to

    def _read(self, file: Path, given: Path) -> elf.ModuleInfo:
        try:
            return elf.read(file)
        except DriverError as error:
            raise _refusal(error.message.replace(str(file), str(given))) from error


def check(name: str, info: elf.ModuleInfo, release: str, version: str) -> None:
    """Was a module made for this kernel, of this driver, for this processor? Raises DriverError."""
    built_for, here = info.field("vermagic").split(" ")[0], os.uname().machine
    if built_for != release:
        raise DriverError(
            Code.WRONG_KERNEL,
            f"{name} was built for kernel {built_for or 'unknown'} (vermagic), not for {release}",
            f"Give modules for {release}, or the kernel they are for (--kernel)",
        )
    if info.field("version") != version:
        raise DriverError(
            Code.OTHER_VERSION,
            f"{name} is of driver {info.field('version') or 'unknown'}, the userspace of this image of {version}",
            "Give modules of the image's own driver version, or build an image of theirs",
        )
    if info.machine != here:
        raise DriverError(
            Code.WRONG_ARCHITECTURE, f"{name} is for {info.machine}, this image for {here}", f"Give modules for {here}"
        )


def check_signatures(files: Mapping[str, Path]) -> None:
    """All are signed or none is: else some would load and others not. Raises DriverError (signature-needed)."""
    signed = [name for name, file in files.items() if loading.is_signed(file)]
    if signed and (lacking := [name for name in files if name not in signed]):
        raise DriverError(
            Code.SIGNATURE_NEEDED,
            f"{', '.join(lacking)} has no signature, and {', '.join(signed)} has",
            "Sign all of them with one key, or none",
        )


def judge_type(core: elf.ModuleInfo, wanted: ModuleType) -> ModuleType:
    """Which of NVIDIA's two sources nvidia.ko was made of; raises DriverError (no-modules, wrong-module-type)."""
    licence = core.field("license")
    kind = LICENCES.get(licence)
    if kind is None:
        raise _refusal(f"nvidia has licence {licence!r}, NVIDIA's have {' or '.join(map(repr, LICENCES))}")
    if wanted not in (ModuleType.AUTO, kind):
        raise DriverError(
            Code.WRONG_MODULE_TYPE,
            f"the modules are the {kind} ones (licence {licence}), and KERNEL_MODULE_TYPE={wanted}",
            f"Set KERNEL_MODULE_TYPE={kind}, or leave it at auto",
        )
    return kind


def _refusal(what: str) -> DriverError:
    return DriverError(Code.NO_MODULES, what, MAKE_THEM_ANEW)
