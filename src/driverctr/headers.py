"""Kernel headers for a release: the host's own, those of the user's packages, the kernel's, the distribution's."""

import os
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from driverctr import kheaders
from driverctr.deferred import tempfile
from driverctr.errors import Code, DriverError, code_of
from driverctr.facts.hostroot import HostRoot, Reach, host_roots
from driverctr.facts.kernel import compiler_of_tree, version_of_tree
from driverctr.files import read_text
from driverctr.log import Log
from driverctr.records import frozen
from driverctr.run import Runner

if TYPE_CHECKING:
    from driverctr.distros import HeaderPackages
    from driverctr.packages import PackageTool, Sources

TOOLS = ("scripts/basic/fixdep", "scripts/mod/modpost", "tools/objtool/objtool")
"""Programs of the headers that Kbuild runs here; objtool is missing where the kernel does not use it."""

TREES = (Path("lib/modules"), Path("usr/lib/modules"))
"""Where packages put modules; newer ones know /usr/lib alone, of which /lib is a link."""

COPY_LIMIT = 300.0
"""Seconds for copying a headers package."""
TOOL_LIMIT = 10.0
"""Seconds; without arguments each prints its usage or nothing and ends."""

LOADER_WORDS = ("error while loading shared libraries", "version `GLIBC", "not found (required by")
"""What the C library's loader says of a program built for another one (ld.so(8))."""

SPLIT_MAKEFILE = re.compile(r"^include (/\S+)/Makefile\s*$", re.MULTILINE)
"""The one line of a split tree's Makefile (Debian, SLES): the common part under its absolute name."""

OF_PACKAGES = (Code.PACKAGES_FAILED, Code.PACKAGES_UNTRUSTED, Code.BAD_SETTING)
"""What a package tool fails with where it is not known whether the place has headers."""

REMEDY = (
    "Install the headers on the host and show them to this container (hostPID, or mount /lib/modules, /usr/src and "
    "on Debian each folder /usr/lib/linux-kbuild-* read-only under its own name); or put their packages into "
    "PACKAGES_DIR, give it package sources that have them, or name an archive of old packages in ARCHIVE_URL"
)


class Origin(StrEnum):
    """Where headers came from."""

    HOST = "host"
    KERNEL = "kernel"
    PACKAGES = "packages"


@frozen
class Headers:
    """Headers ready to build with.

    `build_dir` has the configuration and the tools, `source_dir` Kbuild's Makefile; they differ in a split tree.
    `kernel_version` is `uname -v` where the headers tell it, else empty; `linux_version` is linux/version.h's.
    """

    release: str
    build_dir: Path
    source_dir: Path
    origin: Origin
    place: str
    kernel_version: str
    linux_version: tuple[int, int, int]
    cc_version_text: str


@frozen
class Packages:
    """How the packages of one kernel are asked for, those with its headers being `wanted`."""

    tool: "PackageTool"
    wanted: "HeaderPackages"
    sources: "Sources"

    @property
    def folder(self) -> str:
        """What the user's folder is called."""
        return f"PACKAGES_DIR={self.sources.folder}"

    def from_folder(self, wanted: "HeaderPackages", into: Path) -> tuple[str, ...]:
        """From the user's folder; raises DriverError as PackageTool does."""
        if not (self.sources.root / self.sources.folder.relative_to("/")).is_dir():
            raise DriverError(Code.HEADERS_MISSING, "there is no such folder")
        return self.tool.from_folder(wanted, into)

    def from_archive(self, wanted: "HeaderPackages", into: Path) -> tuple[str, ...]:
        """From the archive of old packages; raises DriverError as PackageTool does."""
        if not self.sources.archive:
            raise DriverError(Code.HEADERS_MISSING, "it is not set")
        return self.tool.from_archive(wanted, into)


PackageSource = Callable[[str, Path], Packages]
"""How packages are asked for, from a kernel's release and a folder for the package tool to work in."""


@frozen
class HeaderSearch:
    """Looks for headers; everything it makes lies in `scratch`, which the caller removes after the build.

    `accept` raises DriverError where headers that were found are not those wanted: then the next place is asked. What
    it doubts it tells in words, "" for nothing: those headers serve where no later place has better ones.
    """

    runner: Runner
    log: Log
    scratch: Path
    packages: PackageSource | None
    root: Path = Path("/")
    accept: Callable[[Headers], str] = lambda found: ""

    def find(self, release: str) -> Headers:
        """The headers of a kernel release; a later place is asked only where the ones before have none that serve.

        Raises DriverError with each place looked at and why it was refused: headers-missing, or where a package tool
        failed, so that it is not known whether they are there, what that failed with.
        """
        refusals: list[str] = []
        failures: list[DriverError] = []
        doubted: list[Headers] = []
        for place, look in self._places(release):
            if found := self._try(place, look, refusals, failures, doubted):
                return found
        if doubted:
            self.log.warning(
                f"headers: {release} from {doubted[0].place} all the same, for no other place has better: the kernel "
                "compares the versions of its symbols when it loads what is built with them"
            )
            return doubted[0]
        raise self._nowhere(release, refusals, failures)

    def _places(self, release: str) -> Iterator[tuple[str, Callable[[], Headers]]]:
        """Where to look, by name, in order; the package tool comes in only when the host has nothing."""
        for place in host_roots(self.root):
            yield str(place.reach), partial(self._host, release, place)
        asked = None if self.packages is None else self.packages(release, self.scratch / "package-tool")
        if asked is not None:
            fetch = partial(asked.from_folder, asked.wanted)
            yield asked.folder, partial(self._packaged, release, asked.folder, fetch)
        yield f"/{kheaders.ARCHIVE}", partial(self._kernels_own, release)
        if asked is not None:
            yield (
                "repositories",
                partial(self._packaged, release, "the repositories", partial(asked.tool.fetch, asked.wanted)),
            )
            fetch = partial(asked.from_archive, asked.wanted)
            yield "ARCHIVE_URL", partial(self._packaged, release, "ARCHIVE_URL", fetch)

    def _nowhere(self, release: str, refusals: list[str], failures: list[DriverError]) -> DriverError:
        code = failures[0].code if failures else Code.HEADERS_MISSING
        remedies = dict.fromkeys((*(failure.remedy.rstrip(".") for failure in failures[:1] if failure.remedy), REMEDY))
        return DriverError(code, f"no headers for kernel {release}: " + "; ".join(refusals), ". Or: ".join(remedies))

    def _try(
        self,
        place: str,
        look: Callable[[], Headers],
        refusals: list[str],
        failures: list[DriverError],
        doubted: list[Headers],
    ) -> Headers | None:
        try:
            found = look()
            doubt = self.accept(found)
        except (DriverError, OSError) as error:
            if isinstance(error, DriverError) and error.code is Code.NO_SPACE:
                raise
            reason = error.message if isinstance(error, DriverError) else str(error)
            if isinstance(error, DriverError) and error.code in OF_PACKAGES:
                failures.append(error)
            refusals.append(f"{place}: {reason}")
            self.log.info(f"headers: not from {place}: {reason}", code=code_of(error))
            return None
        if doubt:
            doubted.append(found)
            refusals.append(f"{place}: {doubt}")
            self.log.info(f"headers: not yet from {place}: {doubt}")
            return None
        self.log.info(f"headers: {found.release} from {found.place}")
        return found

    def _host(self, release: str, place: HostRoot) -> Headers:
        """The host's headers; what only process 1's root shows is copied, since make(1) resolves names in ours."""
        build = place.resolve(Path("/lib/modules") / release / "build")
        check_release(build, release)
        if place.reach is Reach.PROCESS:
            copy = self.scratch / "host"
            copy_tree(place, build, copy, self.runner)
            build, place = copy / build.relative_to(place.path), HostRoot(copy, place.reach)
        return self._headers(release, place, build, Origin.HOST, str(place.inside(build)))

    def _packaged(self, release: str, source: str, fetch: Callable[[Path], tuple[str, ...]]) -> Headers:
        unpacked = Path(tempfile.mkdtemp(prefix="packages-", dir=self.scratch))
        names = fetch(unpacked)
        show_both(unpacked)
        place = HostRoot(unpacked, Reach.MOUNT)
        build = place.resolve(Path("/lib/modules") / release / "build")
        check_release(build, release)
        where = f"packages {', '.join(names)} of {source}"
        return self._headers(release, place, build, Origin.PACKAGES, where)

    def _kernels_own(self, release: str) -> Headers:
        build = kheaders.unpack(self.root, release, host_roots(self.root), self.scratch / "kheaders")
        check_release(build, release)
        return self._headers(release, HostRoot(build, Reach.MOUNT), build, Origin.KERNEL, f"/{kheaders.ARCHIVE}")

    def _headers(self, release: str, place: HostRoot, build: Path, origin: Origin, where: str) -> Headers:
        makefile = (build / "Makefile").read_text()
        source = build
        if split := SPLIT_MAKEFILE.search(makefile):
            source = place.resolve(Path(split.group(1)))
            build = joined_view(place, build, source, Path(tempfile.mkdtemp(prefix="headers-", dir=self.scratch)))
        self._check_tools(build)
        return Headers(
            release=release,
            build_dir=build,
            source_dir=source,
            origin=origin,
            place=f"{place.reach} {where}" if origin is Origin.HOST else where,
            kernel_version=version_of_tree(build),
            linux_version=linux_version(build, source),
            cc_version_text=compiler_of_tree(build),
        )

    def _check_tools(self, build: Path) -> None:
        """Run each tool once: the host's may be linked against a C library that is not ours."""
        for name in TOOLS:
            tool = build / name
            if not tool.exists() and name.startswith("tools/"):
                continue
            result = self.runner.run([tool], limit=TOOL_LIMIT, check=False, cwd=self.scratch)
            if result.status == 127 or any(words in result.stderr for words in LOADER_WORDS):
                raise DriverError(Code.HEADERS_MISSING, f"{name} does not run here: {result.words}")


def show_both(base: Path) -> None:
    """Let modules be found below /lib and below /usr/lib, whichever the package and the tools know; raises OSError."""
    for here, there in (TREES, TREES[::-1]):
        if (base / here).is_dir() and not (base / there).exists():
            (base / there).parent.mkdir(parents=True, exist_ok=True)
            (base / there).symlink_to(os.path.relpath(base / here, (base / there).parent))


def check_release(build: Path, release: str) -> None:
    """Refuse a tree that is missing, incomplete or another kernel's; raises DriverError (headers-missing)."""
    text = read_text(build / "include/generated/utsrelease.h")
    if text is None or not (build / "Makefile").exists():
        raise DriverError(Code.HEADERS_MISSING, f"{build} is missing or has no generated headers")
    found = re.search(r'UTS_RELEASE "([^"]*)"', text)
    if found is None or found.group(1) != release:
        raise DriverError(Code.HEADERS_MISSING, f"{build} belongs to kernel {found.group(1) if found else 'unknown'}")


def linux_version(build: Path, source: Path) -> tuple[int, int, int]:
    """Version, patch level and sublevel from linux/version.h; raises DriverError where there is none."""
    for folder in (build, source):
        text = read_text(folder / "include/generated/uapi/linux/version.h") or ""
        if found := re.search(r"LINUX_VERSION_CODE (\d+)", text):
            code = int(found.group(1))
            return code >> 16, code >> 8 & 255, code & 255
    raise DriverError(Code.HEADERS_MISSING, f"{build} has no include/generated/uapi/linux/version.h")


def joined_view(place: HostRoot, build: Path, source: Path, view: Path) -> Path:
    """A folder that stands for a split tree's build folder, wherever the tree lies and even read-only.

    Its Makefile includes the common part under the name it has here; vmlinux is left out, which only serves BTF.
    """
    view.mkdir(parents=True, exist_ok=True)
    for entry in build.iterdir():
        if entry.name not in ("Makefile", "vmlinux"):
            target = place.resolve(place.inside(entry))
            if not target.exists():
                raise DriverError(Code.HEADERS_MISSING, f"{entry} leads to {target}, which is missing")
            (view / entry.name).symlink_to(target)
    (view / "Makefile").write_text(f"include {source}/Makefile\n")
    return view


def copy_tree(place: HostRoot, build: Path, into: Path, runner: Runner) -> None:
    """Copy a build folder and the folders its links and Makefile lead to, under the names the host gives them.

    By cp(1): 12,000 small files cost Python several times as much.
    """
    pending, done = [place.inside(build)], set[Path]()
    while pending:
        folder = pending.pop()
        if folder in done:
            continue
        done.add(folder)
        real = place.resolve(folder)
        target = into / folder.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        runner.run(["cp", "-a", "--reflink=auto", real, target], limit=COPY_LIMIT)
        (target / "vmlinux").unlink(missing_ok=True)
        pending.extend(path for path in package_folders(place, real) if folder not in (path, *path.parents))


def package_folders(place: HostRoot, folder: Path) -> list[Path]:
    """Folders of other headers packages to which a tree's top links and its Makefile lead, as the host names them.

    A package fills /usr/src/<name> or /usr/lib/<name>, and a link may lead anywhere below that.
    """
    targets = [place.resolve(place.inside(entry)) for entry in folder.iterdir() if entry.is_symlink()]
    makefile = read_text(folder / "Makefile") or ""
    targets += [place.resolve(Path(path)) for path in SPLIT_MAKEFILE.findall(makefile)]
    return [Path(*place.inside(target).parts[:4]) for target in targets]
