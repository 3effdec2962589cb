"""The provider that builds: headers, compiler, make, and a set published whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from driverctr import files, patches
from driverctr.build import BuildRequest, build
from driverctr.distros import Distro
from driverctr.errors import Code, DriverError
from driverctr.facts import kernel, limits
from driverctr.facts.compiler import choose
from driverctr.headers import Headers, HeaderSearch, PackageSource
from driverctr.log import Log
from driverctr.modules import ModuleFile, ModuleSet, Wish, describe, write_manifest
from driverctr.modules.ondisk import DEFAULT_FOLDER, set_folder
from driverctr.records import frozen
from driverctr.run import Runner
from driverctr.userspace.image import Image, Source

BUILD_LOG = "build.log"
DEFAULT_SCRATCH = Path("/var/tmp")
SCRATCH = "driverctr-build-"
ROOM_NEEDED = "Give the container's /var/tmp 1 GB to spare"


@frozen
class Built:
    """Builds a wished set from the image's source and publishes it below `folder`.

    `scratch` holds what the build needs meanwhile (about 1 GB) and the log of a failed one; `max_jobs` is the
    user's own bound.
    """

    image: Image
    distro: Distro
    runner: Runner
    log: Log
    packages: PackageSource | None
    folder: Path = DEFAULT_FOLDER
    scratch: Path = DEFAULT_SCRATCH
    root: Path = Path("/")
    max_jobs: int | None = None
    name: str = "build"

    def find(self, wish: Wish) -> ModuleSet:
        """Build the set and publish it in place of a former one.

        Raises DriverError: no-modules (the image has no such source), headers-missing, compiler-missing, build-failed,
        no-space.
        """
        source = self.image.source(wish.driver_version, wish.module_type)
        with told_if_full(self.scratch), scratch_folder(self.scratch) as scratch:
            with self.log.step("headers", f"for kernel {wish.kernel_release}"):
                search = HeaderSearch(self.runner, self.log, scratch, self.packages, self.root)
                headers = search.find(wish.kernel_release)
            request = self._request(wish, source, headers, scratch)
            draft = self._draft(wish, request, build(request, self.runner, self.log))
            return publish(draft, set_folder(self.folder, wish), request.log_path)

    def _request(self, wish: Wish, source: Source, headers: Headers, scratch: Path) -> BuildRequest:
        wanted = headers.cc_version_text or kernel.read(self.root, wish.kernel_release).cc_version_text
        return BuildRequest(
            source=source,
            headers=headers,
            compiler=choose(wanted, self.runner, self.distro.compiler_package(wanted.split(" ")[0])),
            jobs=limits.read(self.root).jobs(self.max_jobs),
            scratch=scratch / "build",
            log_path=self.scratch / f"driverctr-build-{wish.kernel_release}-{source.version}-{source.type}.log",
            patches=patches.fitting(source.type, source.version, headers.linux_version),
        )

    def _draft(self, wish: Wish, request: BuildRequest, built: Mapping[str, Path]) -> ModuleSet:
        """The set as it lies in the build's scratch folder."""
        headers = request.headers
        modules = {name: describe(path) for name, path in built.items()}
        check_built(wish, modules)
        return ModuleSet(
            folder=request.scratch,
            kernel_release=wish.kernel_release,
            kernel_version=headers.kernel_version or kernel.read(self.root, wish.kernel_release).version,
            driver_version=wish.driver_version,
            module_type=wish.module_type,
            modules=modules,
            patches=tuple(patch.file for patch in request.patches),
            compiler=request.compiler.command,
        )


def check_built(wish: Wish, modules: Mapping[str, ModuleFile]) -> None:
    """Compare what make left with what was wished; raises DriverError (build-failed)."""
    for name, module in modules.items():
        if module.kernel_release != wish.kernel_release:
            raise DriverError(
                Code.BUILD_FAILED,
                f"{name} came out for kernel {module.kernel_release or 'unknown'}, not for {wish.kernel_release}",
                "The kernel headers do not belong together: reinstall them",
            )


@contextmanager
def told_if_full(folder: Path) -> Iterator[None]:
    """A full disk meets us in many places, our own writes and those of cp, make and the compiler: one error for all.

    Raises DriverError (no-space, node-file, and what the block raises).
    """
    full = os.strerror(errno.ENOSPC)
    try:
        yield
    except OSError as error:
        code = Code.NO_SPACE if error.errno == errno.ENOSPC else Code.NODE_FILE
        raise DriverError(code, f"the build's folder {folder} cannot be used: {error}", ROOM_NEEDED) from error
    except DriverError as error:
        if error.code is Code.NO_SPACE or full not in error.message:
            raise
        raise DriverError(Code.NO_SPACE, f"no space left for the build in {folder}: {error}", ROOM_NEEDED) from error


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder for one build, removed whatever happens; that of a build that was killed goes too. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    files.remove_abandoned(path for path in parent.glob(f"{SCRATCH}*") if path.is_dir())
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
    try:
        with files.claimed(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(draft: ModuleSet, target: Path, log_path: Path) -> ModuleSet:
    """Bring a built set to its place: staged beside it, synced, renamed; a former set there is replaced.

    Raises DriverError (build-failed, no-space) where the folder cannot be written; then the stage is removed.
    """
    stage = target.parent / f".{target.name}.stage-{os.getpid()}"
    try:
        files.remove_abandoned(target.parent.glob(f".{target.name}.stage-*"))
        stage.mkdir(parents=True)
        with files.claimed(stage):
            published = {name: replace(module, file=stage / f"{name}.ko") for name, module in draft.modules.items()}
            for name, module in draft.modules.items():
                shutil.move(module.file, published[name].file)
            shutil.move(log_path, stage / BUILD_LOG)
            write_manifest(replace(draft, folder=stage, modules=published))
            files.sync(*stage.iterdir(), stage)
            if target.exists():
                shutil.rmtree(target)
            stage.rename(target)
        files.sync(target.parent)
    except OSError as error:
        raise DriverError(
            Code.NO_SPACE if error.errno == errno.ENOSPC else Code.BUILD_FAILED,
            f"the built modules cannot be stored in {target}: {error.strerror or error}",
            "Give it a writable folder with 150 MB to spare (--output)",
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    final = {name: replace(module, file=target / f"{name}.ko") for name, module in draft.modules.items()}
    return replace(draft, folder=target, modules=final)
