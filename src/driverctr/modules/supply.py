"""Where the wished modules can be had, the kernel among the places: each found, or refused with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import field

from driverctr.config import Config
from driverctr.errors import DriverError
from driverctr.facts.kernel import KernelFacts
from driverctr.facts.modules import LoadedModule
from driverctr.modules import Source, Wish, failures, key, loaded
from driverctr.modules.key import Key
from driverctr.modules.loaded import Build, Loaded
from driverctr.modules.ondisk import OnDisk
from driverctr.paths import Paths
from driverctr.records import frozen
from driverctr.userspace.image import Image


@frozen
class Supply:
    """What was found: `builds` by where they lie, `kept` those of them that are in the kernel already.

    `refusals` tells of every place why it has nothing; a place that only a try can tell about is in neither. `failed`
    says why what is wanted did not serve earlier in this boot, "" where it was not tried.
    """

    key: Key | None = None
    builds: Mapping[Source, Build] = field(default_factory=dict)
    kept: Mapping[Source, Loaded] = field(default_factory=dict)
    refusals: Mapping[Source, DriverError] = field(default_factory=dict)
    failed: str = ""


@frozen
class Search:
    """What is looked for, and where; `names` are the modules to be loaded, as modprobe calls them."""

    paths: Paths
    config: Config
    image: Image
    wish: Wish
    kernel: KernelFacts
    stack: Mapping[str, LoadedModule]
    names: Sequence[str]

    def look(self) -> Supply:
        """Ask every place that answers without the network and without a compiler; changes nothing."""
        builds: dict[Source, Build] = {}
        kept: dict[Source, Loaded] = {}
        refusals: dict[Source, DriverError] = {}
        wanted = None
        try:
            wanted = key.make(self.wish, self.image, self.kernel)
        except DriverError as error:
            refusals[Source.BUILD] = error
        try:
            builds[Source.ON_DISK] = Build(OnDisk(self.config.modules_dir).find(self.wish))
        except DriverError as error:
            refusals[Source.ON_DISK] = error
        record = loaded.read(self.paths)
        candidates = [*builds.values(), *([record.build] if record else [])]
        fitting = [build for build in candidates if build.fits(self.wish, wanted)]
        try:
            kept[Source.LOADED] = loaded.judge(self.paths, self.stack, fitting, self.names, self.wish)
        except DriverError as error:
            refusals[Source.LOADED] = error
        failed = failures.recall(self.paths, failures.attempt(self.paths, self.wish, wanted, self.names))
        return Supply(wanted, builds, kept, refusals, failed)
