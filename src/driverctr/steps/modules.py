"""Have the modules: find them or build them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from driverctr.modules.ondisk import verify
from driverctr.plan import PlannedStep, Source, StepName
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


class Modules:
    """New modules exist and are checked before old ones are unloaded."""

    name = StepName.MODULES
    interruptible = True

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Take the planned alternative; its DriverError is an observation, and the plan is made again."""
        if planned.alternative == Source.ON_DISK and facts.module_set is not None:
            verify(facts.module_set, meanwhile=tools.kmod.prepare)
            return Outcome(None, replace(gained, module_set=facts.module_set))
        provider = builder(tools, facts.image, tools.config.modules_dir)
        return Outcome(None, replace(gained, module_set=provider.find(facts.wish)))

    def undo(self, tools: Tools, data: Undo) -> None:
        """Built modules stay: they are what the next start finds on disk."""
