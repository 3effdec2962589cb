"""The provider that builds: headers, compiler, make, and a set published whole or not at all."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from driverctr import patches
from driverctr.build import BuildRequest, build
from driverctr.distros import Distro
from driverctr.errors import Code, DriverError
from driverctr.facts import kernel, limits
from driverctr.facts.compiler import choose
from driverctr.headers import Headers, HeaderSearch, Origin, PackageSource
from driverctr.log import Log, utc
from driverctr.modules import ModuleFile, ModuleSet, Wish, describe, provenance
from driverctr.modules.drafts import DEFAULT_SCRATCH, Draft, publish, scratch_folder, told_if_full
from driverctr.modules.ondisk import DEFAULT_FOLDER, set_folder
from driverctr.records import frozen
from driverctr.run import Runner
from driverctr.userspace.image import DESCRIPTION, Image, Source


@frozen
class Built:
    """Builds a wished set from the image's source and publishes it below `folder`.

    `scratch` holds what the build needs meanwhile (about 1 GB) and the log of a failed one; `max_jobs` is the
    user's own bound. `kernel_version` is `uname -v` of the kernel meant, where that is known and does not run here.
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
    kernel_version: str = ""
    name: str = "build"

    def find(self, wish: Wish) -> ModuleSet:
        """Build the set and publish it on disk, in place of a former one.

        Raises DriverError: no-modules (the image has no such source), headers-missing, compiler-missing, build-failed,
        no-space.
        """
        with self.draft(wish) as draft:
            return publish(draft, set_folder(self.folder, wish))

    @contextmanager
    def draft(self, wish: Wish) -> Iterator[Draft]:
        """What was built, in scratch for as long as the block lasts; the log of a build that failed stays there.

        Raises DriverError as `find` does.
        """
        source = self.image.source(wish.driver_version, wish.module_type)
        self.image.check_source(source)
        with told_if_full(self.scratch), scratch_folder(self.scratch) as scratch:
            with self.log.step("headers", f"for kernel {wish.kernel_release}"):
                search = HeaderSearch(self.runner, self.log, scratch, self.packages, self.root, self._check_version)
                headers = search.find(wish.kernel_release)
            request = self._request(wish, source, headers, scratch)
            module_set = self._draft(wish, request, build(request, self.runner, self.log))
            yield Draft(module_set, self._provenance(request), request.log_path)
            request.log_path.unlink(missing_ok=True)

    def _check_version(self, headers: Headers) -> str:
        """What the host itself has as headers of its kernel is taken as such; packages of another build are in doubt.

        Builds of one release keep their symbols (Debian kernel handbook, 5.1), and where the kernel compares the
        versions of those, it judges what comes of them. Raises DriverError (headers-missing) where it does not, or a
        kernel of that very version is meant.
        """
        if self.kernel_version:
            check_version(headers, self.kernel_version, self.distro)
        elif headers.origin is not Origin.HOST:
            try:
                check_version(headers, kernel.read(self.root, headers.release).version, self.distro)
            except DriverError as error:
                if not kernel.compares_symbols(headers.build_dir):
                    raise
                return error.message
        return ""

    def _request(self, wish: Wish, source: Source, headers: Headers, scratch: Path) -> BuildRequest:
        wanted = headers.cc_version_text or kernel.read(self.root, wish.kernel_release).cc_version_text
        return BuildRequest(
            source=source,
            headers=headers,
            compiler=choose(wanted, self.runner, self.distro.compiler_package(wanted), self.root),
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

    def _provenance(self, request: BuildRequest) -> dict[str, str]:
        """What the key does not tell; an empty text where it is not known."""
        headers, compiler = request.headers, request.compiler.command
        said = self.runner.run([compiler, "--version"], check=False).stdout.splitlines()
        return {
            "compiler": said[0] if said else compiler,
            "kernel_compiler": headers.cc_version_text,
            **provenance.of_headers(headers.build_dir),
            "headers": headers.place,
            "image_sha256": provenance.digest(self.root / DESCRIPTION),
            "patches": ", ".join(patch.file for patch in request.patches),
            "built": utc(time.time()),
        }


def check_version(headers: Headers, wanted: str, distro: Distro) -> None:
    """Refuse headers of another build of the kernel, as far as both are known; raises DriverError (headers-missing).

    One release may come in several package versions, and a rebuild of RHEL has RHEL's names.
    """
    if not headers.kernel_version or not wanted or headers.kernel_version == wanted:
        return
    theirs, ours = (distro.identify(headers.release, version) for version in (headers.kernel_version, wanted))
    differ = theirs.package_version != ours.package_version and ours.package_version
    packages = f" (package version {theirs.package_version or 'unknown'}, not {ours.package_version})" if differ else ""
    raise DriverError(
        Code.HEADERS_MISSING,
        f"the headers from {headers.place} are of the build {headers.kernel_version}, the kernel meant is {wanted}"
        + packages,
        f"Give it headers of {headers.release} in the kernel's own package version, from the distribution that built "
        "the kernel, or boot the host into the build that the packages are of",
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
