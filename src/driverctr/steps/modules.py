"""Have the modules, found or built, and where modprobe finds them, before anything is unloaded."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from driverctr import moduletree, parameters
from driverctr.deferred import load_of_others
from driverctr.errors import Code, DriverError
from driverctr.facts.hostroot import HostRoot
from driverctr.modules import PEERMEM, ModuleSet, Source, elf, needed_of_host
from driverctr.modules.key import Key
from driverctr.modules.loaded import Build
from driverctr.modules.ondisk import check_file, verify
from driverctr.modules.supply import Supply
from driverctr.mounts import propagation
from driverctr.mounts.syscalls import Syscalls
from driverctr.plan import NO_PACKAGES, PlannedStep, StepName
from driverctr.preflight import FIND_IT, SHOW_THE_TREE, describe_lacking
from driverctr.records import replace
from driverctr.settings import Unknown
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts, find_lacking
from driverctr.userspace.image import Image

if TYPE_CHECKING:
    from driverctr.distros import Distro
    from driverctr.headers import Packages
    from driverctr.modules.built import Built
    from driverctr.modules.drafts import Draft


OF_THE_BUILD = (Code.UNKNOWN_SYMBOL, Code.WRONG_KERNEL)
"""What modules built here and now may cure: those that came from elsewhere were built against another kernel."""


def builder(tools: Tools, described: Image, folder: Path) -> "Built":
    """The provider that builds into `folder`, with the image's own source and its distribution's packages.

    What a build needs is imported here: a start that finds its modules pays nothing for it.
    """
    from driverctr import distros
    from driverctr.facts import osrelease
    from driverctr.modules.built import Built

    distro = distros.of(osrelease.of_image(tools.paths.root))
    return Built(
        described,
        distro,
        tools.runner,
        tools.runner.log,
        lambda release, scratch: packages_of(tools, distro, release, scratch),
        folder=folder,
        root=tools.paths.root,
        max_jobs=tools.config.max_threads,
    )


def packages_of(tools: Tools, distro: "Distro", release: str, scratch: Path) -> "Packages":
    """How the packages with a kernel's headers are asked for, by the settings; nothing is asked yet."""
    from driverctr.facts import kernel, osrelease
    from driverctr.headers import Packages
    from driverctr.packages import Sources
    from driverctr.packages.tools import tool_for

    config, root = tools.config, tools.paths.root
    identity = distro.identify(release, kernel.read(root, release).version)
    mismatch = distro.describe_mismatch(osrelease.of_host(tools.paths))
    sources = Sources(
        distro.certificates,
        config.default_repositories and not mismatch,
        config.packages_dir,
        config.archive_url,
        mismatch or "DEFAULT_REPOSITORIES=false",
        root,
    )
    tool = tool_for(
        distro,
        identity,
        distro.repositories(identity, releasever=config.dnf_releasever, openshift=config.openshift_version),
        sources,
        runner=tools.runner,
        scratch=scratch,
        pause=tools.signals.pause,
        log=tools.runner.log,
        pro_token=config.ubuntu_pro_token,
    )
    return Packages(tool, distro.header_packages(release), sources)


def fetched(tools: Tools, wanted: Key) -> AbstractContextManager["Draft"]:
    """The modules of the remote folder, to be entered; raises DriverError (no-modules) where none is set."""
    from driverctr.modules import remote
    from driverctr.modules.drafts import DEFAULT_SCRATCH

    scratch = tools.paths.root / DEFAULT_SCRATCH.relative_to("/")
    folder = remote.configured(tools.config, tools.runner.log, tools.signals.sleep)
    with tools.signals.held():  # `cryptography` comes in there
        load_of_others()
    return folder.draft(wanted, scratch)


def check_parameters(tools: Tools, module_set: ModuleSet, names: Sequence[str]) -> None:
    """Before anything is unloaded: will the modules take what the user asks? Raises DriverError (bad-parameter)."""
    for name in names:
        file = module_set.modules[name].file
        if (words := parameters.user_words(tools.paths, name)) and file.is_file():
            refuse = tools.config.unknown_parameters is Unknown.REFUSE
            known = elf.read(file).parameters
            parameters.check(name, words, known, refuse_unknown=refuse, log=tools.runner.log)


class Modules:
    """New modules exist and are checked before old ones are unloaded."""

    name = StepName.MODULES
    interruptible = True

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Take the planned alternative; its DriverError is an observation, and the plan is made again."""
        source = Source(planned.alternative)
        if kept := facts.supply.kept.get(source):
            for name in kept.missing:
                check_file(kept.build.module_set.modules[name], tools.hashes)
            check_parameters(tools, kept.build.module_set, facts.to_load)
            return Outcome(
                None, replace(gained, build=kept.build, source=source, kept=kept, parameters=kept.parameters)
            )
        if source is Source.LAST_GOOD and (good := facts.supply.good):
            self._verify(tools, facts.supply, good.build)
            return Outcome(
                None, replace(gained, build=good.build, source=source, kept=None, parameters=good.parameters)
            )
        build = self._obtain(tools, source, facts)
        check_parameters(tools, build.module_set, facts.to_load)
        known = {name: elf.read(build.module_set.modules[name].file).parameters for name in facts.to_load}
        if source not in facts.supply.builds:  # else the plan has told it
            for name in facts.to_load:
                for sentence in parameters.lacking(name, build.module_set.driver_version, known[name]):
                    tools.runner.log.warning(sentence)
        asked = {name: parameters.asked(tools.paths, name, known[name]) for name in facts.to_load}
        return Outcome(None, replace(gained, build=build, source=source, kept=None, parameters=asked))

    def _obtain(self, tools: Tools, source: Source, facts: Facts) -> Build:
        supply = facts.supply
        if build := supply.builds.get(source):
            self._verify(tools, supply, build)
            return build
        from driverctr.modules.drafts import keep

        if (wanted := supply.key) is None:
            raise supply.refusals[Source.BUILD]
        refused = [seen.error.code for seen in facts.refusals(StepName.MODULES) if seen.alternative == Source.STORE]
        unfit = any(code in OF_THE_BUILD for code in refused)  # what lies in the store stays until others serve
        return keep(
            lambda: (
                fetched(tools, wanted)
                if source is Source.REMOTE
                else builder(tools, facts.image, tools.config.modules_dir).draft(facts.wish)
            ),
            wanted,
            None if unfit else supply.store,
            tools.config.modules_dir,
            tools.signals.sleep,
            tools.runner.log,
            facts.to_load,
            supply.doubt,
        )

    def _verify(self, tools: Tools, supply: Supply, build: Build) -> None:
        """Compare each file with its manifest; an entry of the store that is damaged is set aside."""
        store, key = supply.store, build.key
        found = self._as_loaded(tools, build.module_set)
        if store is None or key is None or not build.module_set.folder.is_relative_to(store.folder):
            self._compare(tools, found)
            return
        try:
            self._compare(tools, found)
        except DriverError as error:
            store.set_aside(key, error.message)
            raise
        store.touch(key)

    def _compare(self, tools: Tools, found: ModuleSet) -> None:
        """Hash the files, and import `sh` beside it: a signal in there might be lost (deferred.defer_of_others)."""

        def prepare() -> None:
            with tools.signals.held():
                tools.kmod.prepare()

        verify(found, prepare, tools.hashes)

    def _as_loaded(self, tools: Tools, found: ModuleSet) -> ModuleSet:
        """The set with the files that will be loaded: a copy in our tree that is still what it was made as."""
        copies = {
            name: copy
            for name, module in found.modules.items()
            if (copy := moduletree.copy_of(tools.paths, found.kernel_release, module.file))
            and tools.hashes.of(copy) == module.sha256
        }
        return replace(
            found,
            modules={name: replace(each, file=copies.get(name, each.file)) for name, each in found.modules.items()},
        )

    def undo(self, tools: Tools, data: Undo) -> None:
        """Built modules stay: they are what the next start finds on disk."""


class ModuleTree:
    """The tree that modprobe reads is our container's own: what a store elsewhere gives up is still in it."""

    name = StepName.MODULE_TREE
    interruptible = True

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Settle our mount namespace, move what is mounted over our folder off it, and furnish it.

        What was built or fetched in this start may need modules of the host's that the plan could not know of: where
        they are nowhere on the node, their packages are asked for, which alone a signal may end half-way.
        """
        release, kept = facts.wish.kernel_release, gained.kept
        with tools.signals.held():
            propagation.settle(tools.paths)
            moduletree.set_aside(tools.paths, release, Syscalls())
            if kept and not kept.missing:
                return Outcome(None, gained)
            names = tuple(gained.parameters)
            first = furnish(tools, gained.module_set, names)
            lacking = find_lacking(tools.paths, gained.module_set, names)
        if lacking and planned.alternative == NO_PACKAGES:
            visible = facts.host_modules
            raise DriverError(Code.LOAD_FAILED, describe_lacking(lacking, visible=visible), how_to_have(visible))
        if lacking:
            first += self._fetch(tools, gained.module_set, names, lacking, visible=facts.host_modules)
        return Outcome(None, replace(gained, host_modules=tuple(dict.fromkeys(first))))

    def _fetch(
        self, tools: Tools, module_set: ModuleSet, names: Sequence[str], lacking: Sequence[str], *, visible: bool
    ) -> tuple[str, ...]:
        """Add what is nowhere on the node, from packages; returns the host's modules to be loaded first."""
        told = describe_lacking(lacking, visible=visible)
        tools.runner.log.info(f"{told}: asking for its packages")
        try:
            with unpacked(tools, module_set.kernel_release, lacking) as place, tools.signals.held():
                return furnish(tools, module_set, names, place)
        except DriverError as error:
            if error.code is Code.NO_SPACE:
                raise
            remedy = f"{how_to_have(visible)}; or put the kernel's own packages of modules into PACKAGES_DIR"
            raise DriverError(Code.LOAD_FAILED, f"{told}; {error.message}", remedy) from error

    def undo(self, tools: Tools, data: Undo) -> None:
        """The next start finds its copies there, and hashes them."""


def how_to_have(visible: bool) -> str:
    """What to do about modules of the host's that are not there."""
    return FIND_IT if visible else SHOW_THE_TREE


@contextmanager
def unpacked(tools: Tools, release: str, lacking: Sequence[str]) -> Iterator[HostRoot]:
    """A tree with these modules of the host's kernel, from packages, for as long as the block lasts.

    What that needs is imported here: a start that lacks nothing pays nothing for it. Raises DriverError.
    """
    from driverctr import distros
    from driverctr.facts import osrelease
    from driverctr.hostmodules import HostModules
    from driverctr.modules.drafts import DEFAULT_SCRATCH, scratch_folder, told_if_full

    parent = tools.paths.root / DEFAULT_SCRATCH.relative_to("/")
    distro = distros.of(osrelease.of_image(tools.paths.root))
    with told_if_full(parent), scratch_folder(parent) as scratch:
        packages = packages_of(tools, distro, release, scratch / "package-tool")
        search = HostModules(tools.paths, tools.runner, packages, distro.module_packages(release), scratch)
        place = search.find(release, lacking)
        with tools.signals.held():
            tools.kmod.index(release, place.path)
        yield place


def furnish(
    tools: Tools, module_set: ModuleSet, names: Sequence[str], fetched: HostRoot | None = None
) -> tuple[str, ...]:
    """Put the modules where modprobe finds them, here and in the driver root; returns the host's to be loaded first.

    Those are the host's own, or of what was `fetched` only such as ours name. Where RDMA is asked for, nvidia-peermem
    is put there too, for whoever loads it. Raises DriverError (load-failed, no-space; no-modules where a file is not
    the one described).
    """
    beside = [PEERMEM] if tools.config.rdma and PEERMEM in module_set.modules else []
    placed = [module_set.modules[name] for name in dict.fromkeys((*names, *beside))]
    release = module_set.kernel_release
    return moduletree.assemble(
        tools.paths,
        release,
        {module.file: module.sha256 for module in placed},
        fetched or moduletree.host_place(tools.paths, release),
        tools.kmod,
        tools.hashes,
        needed_of_host(module_set, names, softly=True),
        () if fetched else moduletree.WANTED_FROM_HOST,
    )
