"""Have the modules: find them or build them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from driverctr import parameters
from driverctr.config import Unknown
from driverctr.modules import ModuleSet, elf
from driverctr.modules.ondisk import verify
from driverctr.plan import PlannedStep, Source, StepName, modules_to_load
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts
from driverctr.userspace.image import Image

if TYPE_CHECKING:
    from driverctr.modules.built import Built


def builder(tools: Tools, described: Image, folder: Path) -> "Built":
    """The provider that builds into `folder`, with the image's own source and its distribution's packages.

    What a build needs is imported here: a start that finds its modules pays nothing for it.
    """
    from driverctr import distros
    from driverctr.modules.built import Built
    from driverctr.packages.apt import Apt

    distro = distros.by_name(described.distribution)

    def fetch_headers(release: str, into: Path) -> tuple[str, ...]:
        wanted = distro.header_packages(release)
        apt = Apt(tools.runner, into.parent / "apt", tools.signals.sleep, tools.runner.log)
        return apt.fetch(wanted.package, wanted.companions, into)

    return Built(
        described,
        distro,
        tools.runner,
        tools.runner.log,
        fetch_headers,
        folder=folder,
        root=tools.paths.root,
        max_jobs=tools.config.max_threads,
    )


def check_parameters(tools: Tools, facts: Facts, found: ModuleSet) -> None:
    """Before anything is unloaded: will the modules take what the user asks? Raises DriverError (bad-parameter)."""
    for name in modules_to_load(tools.config, facts):
        if words := parameters.user_words(tools.paths, name):
            known = elf.read(found.folder / found.modules[name].file).parameters
            refuse = tools.config.unknown_parameters is Unknown.REFUSE
            parameters.check(name, words, known, refuse_unknown=refuse, log=tools.runner.log)


class Modules:
    """New modules exist and are checked before old ones are unloaded."""

    name = StepName.MODULES
    interruptible = True

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Take the planned alternative; its DriverError is an observation, and the plan is made again."""
        found = facts.module_set
        if planned.alternative == Source.ON_DISK and found is not None:
            verify(found, meanwhile=tools.kmod.prepare)
        else:
            found = builder(tools, facts.image, tools.config.modules_dir).find(facts.wish)
        check_parameters(tools, facts, found)
        return Outcome(None, replace(gained, module_set=found))

    def undo(self, tools: Tools, data: Undo) -> None:
        """Built modules stay: they are what the next start finds on disk."""
