"""What served before on this kernel, and is not what is wanted: whether it can return if that does not serve."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from driverctr import parameters
from driverctr.errors import DriverError
from driverctr.facts.kernel import KernelFacts
from driverctr.facts.modules import CORE, LoadedModule
from driverctr.modules import Wish, known_parameters, loaded, pins
from driverctr.modules.key import Key
from driverctr.modules.loaded import Build, Record
from driverctr.modules.pins import Good
from driverctr.modules.store import Store
from driverctr.paths import Paths
from driverctr.records import frozen, replace
from driverctr.userspace.image import Image

if TYPE_CHECKING:
    from driverctr.userspace.listing import Listing


@frozen
class Former:
    """What served before: `record` returns with its parameters; where nothing can, `lacks` says for want of what.

    `is_loaded` tells that it is in the kernel now. `userspace` is what is kept of it where it is of another version.
    """

    record: Record | None = None
    is_loaded: bool = False
    lacks: str = ""
    userspace: "Listing | None" = None

    @property
    def driver_version(self) -> str:
        """Of what can return."""
        return self.record.build.module_set.driver_version if self.record else ""


@frozen
class Past:
    """Where what served before is looked for; `names` are the modules to be loaded, as modprobe calls them."""

    paths: Paths
    image: Image
    wish: Wish
    wanted: Key | None
    kernel: KernelFacts
    names: Sequence[str]
    store: Store | None

    def find_loaded(self, stack: Mapping[str, LoadedModule], record: Record | None) -> Former | None:
        """What is in the kernel: ours where the record of the last load is of it."""
        core = stack.get(CORE)
        if core is None:
            return None
        ours = record if record is not None and self._is_ours(record, stack) else None
        if core.version != self.wish.driver_version:
            stored = [seen for seen in self._stored(core.version) if loaded.is_loaded(seen.build.module_set, stack)]
            return self._of_other_version(core.version, stored, is_loaded=True)
        return Former(ours, is_loaded=True) if ours else None

    def _is_ours(self, record: Record, stack: Mapping[str, LoadedModule]) -> bool:
        found = record.build.module_set
        complete = all(name in record.parameters for name in self.names)
        return found.kernel_release == self.wish.kernel_release and complete and loaded.is_loaded(found, stack)

    def recall(self) -> Former | None:
        """What served last on this kernel by the store's word, perhaps before a reboot; None where that is wanted now.

        What cannot return is passed over for what served before it; where nothing else did, it is told.
        """
        gone = None
        for version in dict.fromkeys(good.key.driver_version for good in self._good_ones()):
            stored = self._stored(version)
            if version != self.wish.driver_version:
                former = self._of_other_version(version, stored)
                if former.record is not None:
                    return former
                gone = gone or former
            elif others := [seen for seen in stored if not self._is_wanted(seen)]:
                return Former(others[0])
        return gone

    def _good_ones(self) -> Sequence[Good]:
        try:
            good = pins.read(self.store.folder).good if self.store else ()
        except DriverError:
            return ()
        return [each for each in good if not self._kernel_of(each.key).differing(each.key)]

    def _stored(self, version: str) -> list[Record]:
        """What became ready of a version, if the store still has it, the latest first."""
        records = []
        for good in self._good_ones():
            if good.key.driver_version == version and self.store is not None:
                with suppress(DriverError):
                    found = self.store.find(good.key)
                    records.append(Record(Build(found.module_set, found.key), good.parameters))
        return records

    def _of_other_version(self, version: str, stored: Sequence[Record], *, is_loaded: bool = False) -> Former:
        """Its userspace must be kept, and what ours is must be known; its modules must be in the store."""
        if self.store is None:
            return Former(lacks=f"no userspace of {version or 'a driver of no version'}")
        from driverctr.modules.userspaces import Userspaces
        from driverctr.userspace import listing

        try:
            kept = Userspaces(self.store).find(version, self.image.platform)
            listing.read(self.paths.root)
        except DriverError as error:
            return Former(lacks=error.message)
        complete = [seen for seen in stored if all(name in seen.parameters for name in self.names)]
        if not complete:
            return Former(lacks=f"no modules of {version} for this kernel in the store")
        return Former(complete[0], is_loaded, userspace=kept)

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

    def _is_wanted(self, record: Record) -> bool:
        modules = record.build.module_set.modules
        asked = {name: parameters.asked(self.paths, name, known_parameters(modules[name])) for name in self.names}
        return record.build.fits(self.wish, self.wanted) and asked == dict(record.parameters)
