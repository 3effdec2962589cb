"""Modules of the host's kernel that are nowhere on the node: from that kernel's own packages."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from driverctr.deferred import tempfile
from driverctr.distros import HeaderPackages
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.facts.hostroot import HostRoot, Reach
from driverctr.headers import TREES, Packages, show_both
from driverctr.paths import Paths
from driverctr.records import frozen
from driverctr.run import Runner

ALONE = re.compile(r"(?!)")
"""No dependency of these packages is wanted: a kernel's image depends on programs that make an initramfs."""

FIELD = re.compile(r"^(depends|vermagic):[ \t]*(.*)$", re.MULTILINE)
"""Of what modinfo(8) prints of a module."""

READ_LIMIT = 30.0
"""Seconds."""

Fetch = Callable[[HeaderPackages, Path], tuple[str, ...]]


@frozen
class HostModules:
    """Looks for modules in the packages called `names`, in that order; `scratch` is the caller's to remove."""

    paths: Paths
    runner: Runner
    packages: Packages
    names: tuple[str, ...]
    scratch: Path

    def find(self, release: str, wanted: Sequence[str]) -> HostRoot:
        """A folder that has these modules, and what they depend on, where a host has them; it has no index yet.

        A later place is asked only where those before lack one. Raises DriverError: no-space, else load-failed with
        each place and why it was refused.
        """
        refusals: list[str] = []
        places: dict[str, Fetch] = {
            self.packages.folder: self.packages.from_folder,
            "repositories": self.packages.tool.fetch,
            "ARCHIVE_URL": self.packages.from_archive,
        }
        for place, fetch in places.items():
            try:
                found, names = self._from(fetch, release, wanted)
            except DriverError as error:
                if error.code is Code.NO_SPACE:
                    raise
                refusals.append(f"{place}: {error.message}")
                self.runner.log.info(
                    f"modules of the host's kernel: not from {place}: {error.message}", code=error.code.value
                )
            else:
                self.runner.log.info(f"{', '.join(wanted)} of the host's kernel: from {', '.join(names)} of {place}")
                return found
        raise DriverError(Code.LOAD_FAILED, f"no packages with it can be had: {'; '.join(refusals)}")

    def _from(self, fetch: Fetch, release: str, wanted: Sequence[str]) -> tuple[HostRoot, list[str]]:
        """Package by package from one place, until all is there; which packages it took. Raises DriverError."""
        into = Path(tempfile.mkdtemp(prefix="host-modules-", dir=self.scratch))
        taken: list[str] = []
        refusals: list[str] = []
        lacks = ""
        for name in self.names:
            try:
                taken += fetch(HeaderPackages(name, ALONE), into)
            except DriverError as error:
                if error.code is not Code.HEADERS_MISSING:  # then the place has nothing of that name
                    raise
                refusals.append(error.message)
                continue
            show_both(into)
            if not (lacks := self._lacks(into, release, wanted)):
                return HostRoot(into, Reach.MOUNT), taken
        told = [f"{', '.join(taken)} {'has' if len(taken) == 1 else 'have'} {lacks}"] if taken else []
        raise DriverError(Code.LOAD_FAILED, "; ".join((*told, *dict.fromkeys(refusals))))

    def _lacks(self, base: Path, release: str, wanted: Sequence[str]) -> str:
        """What of the modules wanted, and of those they depend on, is not there, or of another kernel; "" if nothing.

        A module that only others depend on may be loaded already.
        """
        tree = base / TREES[0] / release
        files = {modules.kernel_name(file.name.partition(".")[0]): file for file in tree.rglob("*.ko*")}
        pending, seen = [modules.kernel_name(name) for name in wanted], set[str]()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            if (file := files.get(name)) is None:
                return f"no {name} for {release}"
            told = self._read(file)
            if (theirs := told.get("vermagic", "").partition(" ")[0]) != release:
                return f"{name} of kernel {theirs or 'unknown'}, not of {release}"
            depends = map(modules.kernel_name, filter(None, told.get("depends", "").split(",")))
            pending += [other for other in depends if not modules.is_available(self.paths, other)]
        return ""

    def _read(self, file: Path) -> Mapping[str, str]:
        """Fields of a module, which may be compressed; modinfo tells none of one that it cannot read."""
        return dict(FIELD.findall(self.runner.run(["modinfo", file], limit=READ_LIMIT, check=False).stdout))
