"""Where the wished modules can be had, the kernel among the places: each found, or refused with the reason."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.facts.kernel import KernelFacts
from driverctr.facts.modules import LoadedModule
from driverctr.log import Log
from driverctr.modules import Source, Wish, failures, key, loaded
from driverctr.modules.entry import Entry
from driverctr.modules.former import Former, Past
from driverctr.modules.key import Key
from driverctr.modules.loaded import Build, Loaded, Record
from driverctr.modules.ondisk import OnDisk, check_complete, describe_other_build
from driverctr.modules.store import Store, locate
from driverctr.paths import Paths
from driverctr.records import field, frozen, replace
from driverctr.userspace.image import Image

if TYPE_CHECKING:
    from driverctr.modules.provenance import Doubt


@frozen
class Supply:
    """What was found: `builds` by where they lie, `kept` those of them that are in the kernel already.

    `refusals` tells of every place why it has nothing; a place that only a try can tell about is in neither. `former`
    is what is loaded, or served last, though it is not what is wanted: another version or build, or other parameters.
    `failed` says why what is wanted did not serve earlier in this boot, "" where it was not tried. `store` is None
    where none is usable, and `doubt` is about its entry among the builds; `other_build` says that what is on disk was
    made for another build of the kernel, "" where it was not.
    """

    key: Key | None = None
    builds: Mapping[Source, Build] = field(default_factory=dict)
    kept: Mapping[Source, Loaded] = field(default_factory=dict)
    refusals: Mapping[Source, DriverError] = field(default_factory=dict)
    former: Former | None = None
    failed: str = ""
    store: Store | None = None
    doubt: "Doubt | None" = None
    other_build: str = ""

    @property
    def good(self) -> Record | None:
        """What returns if what is wanted does not serve."""
        return self.former.record if self.former else None


@contextmanager
def noted(refusals: dict[Source, DriverError], source: Source) -> Iterator[None]:
    """A place that cannot be asked, or whose files go while it is asked, has nothing: the next one is asked."""
    try:
        yield
    except DriverError as error:
        refusals[source] = error
    except OSError as error:
        refusals[source] = DriverError(Code.NO_MODULES, f"{error.filename}: {error.strerror}")


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
        wanted, other_build = None, ""
        try:
            wanted = key.make(self.wish, self.image, self.kernel)
            self.image.check_source(self.image.source(self.wish.driver_version, self.wish.module_type))
        except DriverError as error:
            refusals[Source.BUILD] = error
            refusals |= {Source.REMOTE: error} if wanted is None else {}
        store, found = None, None
        with noted(refusals, Source.STORE):
            store = Store.open(locate(self.paths, self.config), self.log, self.config.store_max_size)
            if wanted is not None:
                found = store.find(wanted)
                check_complete(found.module_set, self.names)
                builds[Source.STORE] = Build(found.module_set, found.key)
        with noted(refusals, Source.ON_DISK):
            on_disk = OnDisk(self.config.modules_dir).find(self.wish)
            check_complete(on_disk, self.names)
            other_build = describe_other_build(on_disk, self.kernel.version)
            baked = self.image.kernel_release == self.wish.kernel_release
            builds = {Source.ON_DISK: Build(on_disk)} | builds if baked else builds | {Source.ON_DISK: Build(on_disk)}
        record = loaded.read(self.paths)
        candidates = [*builds.values(), *([record.build] if record else [])]
        fitting = [build for build in candidates if build.fits(self.wish, wanted)]
        with noted(refusals, Source.LOADED):
            kept[Source.LOADED] = loaded.judge(self.paths, self.stack, fitting, self.names, self.wish)
        doubt = self._judge(store, found) if Source.STORE in builds and Source.LOADED not in kept else None
        past = Past(self.paths, self.image, self.wish, wanted, self.kernel, self.names, store)
        former = self._find_former(past, record, kept.get(Source.LOADED))
        if former is not None and former.record is not None and former.is_loaded:
            good = former.record
            try:
                missing = loaded.find_missing(good.build.module_set, self.stack, self.names)
                kept[Source.LAST_GOOD] = Loaded(good.build, good.parameters, missing=missing)
            except DriverError as error:
                former = replace(former, record=None, lacks=error.message)
        failed = failures.recall(self.paths, failures.attempt(self.paths, self.wish, wanted, self.names))
        return Supply(wanted, builds, kept, refusals, former, failed, store, doubt, other_build)

    def _judge(self, store: Store | None, found: Entry | None) -> "Doubt | None":
        """Only what is about to be loaded is compared with the host's headers: of what is loaded, the kernel tells."""
        if store is None or found is None:
            return None
        from driverctr.modules import provenance

        return provenance.judge(store, found, self.kernel, self.paths.root)

    def _find_former(self, past: Past, record: Record | None, wanted: Loaded | None) -> Former | None:
        """What is loaded, or what served last, the one that can return before the one that cannot."""
        if wanted is not None and not wanted.stale:
            return None
        found = [past.find_loaded(self.stack, record), *([] if wanted else [past.recall()])]
        there = [former for former in found if former is not None]
        return next((former for former in there if former.record), there[0] if there else None)
