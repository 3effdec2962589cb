"""What served before on this kernel, and is not what is wanted: whether it can return if that does not serve."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

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
from driverctr.records import frozen


@frozen
class Former:
    """What served before: `record` returns with its parameters; where nothing can, `lacks` says for want of what.

    `is_loaded` tells that it is in the kernel now.
    """

    record: Record | None = None
    is_loaded: bool = False
    lacks: str = ""


@frozen
class Past:
    """Where what served before is looked for; `names` are the modules to be loaded, as modprobe calls them."""

    paths: Paths
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
            return self._of_other_version(core.version)
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
        for good in self._good_ones():
            if good.key.driver_version != self.wish.driver_version:
                gone = gone or self._of_other_version(good.key.driver_version)
                continue
            with suppress(DriverError):
                record = self._recall(good)
                return gone if self._is_wanted(record) else Former(record)
        return gone

    def _good_ones(self) -> Sequence[Good]:
        try:
            good = pins.read(self.store.folder).good if self.store else ()
        except DriverError:
            return ()
        return [each for each in good if not self._kernel_of(each.key).differing(each.key)]

    def _recall(self, good: Good) -> Record:
        """Raises DriverError where its entry is gone."""
        assert self.store is not None
        found = self.store.find(good.key)
        return Record(Build(found.module_set, found.key), good.parameters)

    def _of_other_version(self, version: str) -> Former:
        return Former(lacks=f"no userspace of {version or 'a driver of no version'}")

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
