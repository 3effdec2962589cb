"""Where the wished modules can be had, the kernel among the places: each found, or refused with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from driverctr import parameters
from driverctr.config import Config
from driverctr.errors import DriverError
from driverctr.facts.kernel import KernelFacts
from driverctr.facts.modules import LoadedModule
from driverctr.log import Log
from driverctr.modules import Source, Wish, failures, key, known_parameters, loaded, pins
from driverctr.modules.key import Key
from driverctr.modules.loaded import Build, Loaded, Record
from driverctr.modules.ondisk import OnDisk
from driverctr.modules.store import Store, locate
from driverctr.paths import Paths
from driverctr.records import frozen
from driverctr.userspace.image import Image


@frozen
class Supply:
    """What was found: `builds` by where they lie, `kept` those of them that are in the kernel already.

    `refusals` tells of every place why it has nothing; a place that only a try can tell about is in neither. `good` is
    what is loaded though it is not what is wanted: another build of this version, or other parameters. `failed` says
    why what is wanted did not serve earlier in this boot, "" where it was not tried. `store` is None where none is
    usable.
    """

    key: Key | None = None
    builds: Mapping[Source, Build] = field(default_factory=dict)
    kept: Mapping[Source, Loaded] = field(default_factory=dict)
    refusals: Mapping[Source, DriverError] = field(default_factory=dict)
    good: Record | None = None
    failed: str = ""
    store: Store | None = None


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
    log: Log = field(default_factory=Log)

    def look(self) -> Supply:
        """Ask every place that answers without the network and without a compiler; changes nothing."""
        builds: dict[Source, Build] = {}
        kept: dict[Source, Loaded] = {}
        refusals: dict[Source, DriverError] = {}
        wanted = None
        try:
            wanted = key.make(self.wish, self.image, self.kernel)
        except DriverError as error:
            refusals[Source.REMOTE] = refusals[Source.BUILD] = error
        store = None
        try:
            store = Store.open(locate(self.paths, self.config), self.log, self.config.store_max_size)
            if wanted is not None:
                found = store.find(wanted)
                builds[Source.STORE] = Build(found.module_set, found.key)
        except DriverError as error:
            refusals[Source.STORE] = error
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
        good = self._find_good(record, kept.get(Source.LOADED))
        if good is not None:
            kept[Source.LAST_GOOD] = Loaded(good.build, good.parameters)
        elif store is not None and not kept:
            good = self._recall_good(store, wanted)
        failed = failures.recall(self.paths, failures.attempt(self.paths, self.wish, wanted, self.names))
        return Supply(wanted, builds, kept, refusals, good, failed, store)

    def _recall_good(self, store: Store, wanted: Key | None) -> Record | None:
        """What served last on this kernel, perhaps before a reboot, unless it is what is wanted now."""
        try:
            for good in pins.read(store.folder).good:
                same_kernel = not self._kernel_of(good.key).differing(good.key)
                if same_kernel and good.key.driver_version == self.wish.driver_version:
                    found = store.find(good.key)
                    record = Record(Build(found.module_set, found.key), good.parameters)
                    return None if self._is_wanted(record, wanted) else record
        except DriverError:
            return None
        return None

    def _kernel_of(self, other: Key) -> Key:
        """The same key for the kernel that runs."""
        kernel = self.kernel
        return replace(
            other,
            architecture=kernel.architecture,
            kernel_release=kernel.release,
            kernel_version=kernel.version,
            kernel_build_id=kernel.build_id,
        )

    def _is_wanted(self, record: Record, wanted: Key | None) -> bool:
        modules = record.build.module_set.modules
        asked = {name: parameters.asked(self.paths, name, known_parameters(modules[name])) for name in self.names}
        return record.build.fits(self.wish, wanted) and asked == dict(record.parameters)

    def _find_good(self, record: Record | None, wanted: Loaded | None) -> Record | None:
        """What was loaded last and still is, where it is of this driver version, whose userspace is ours to export."""
        if record is None or (wanted is not None and not wanted.stale):
            return None
        found = record.build.module_set
        same = (found.kernel_release, found.driver_version) == (self.wish.kernel_release, self.wish.driver_version)
        complete = all(name in record.parameters for name in self.names)
        return record if same and complete and loaded.is_loaded(found, self.stack) else None
