"""What is mounted at the driver root: a look that changes nothing, for starts, checks and `driverctr status` alike."""

import os
from collections.abc import Sequence
from pathlib import Path

from driverctr.facts import mounttable
from driverctr.facts.mounttable import Mount
from driverctr.paths import Paths
from driverctr.records import frozen


@frozen
class RootState:
    """What is mounted at the driver root: lowest layer first; `peers` are mounts inside the uppermost through which
    an event at /run/nvidia comes back into the tree, as `mount --rbind /` makes them. `unshared` says why the host
    would not see what is mounted there, "" if it would."""

    layers: tuple[Mount, ...]
    ours: bool
    peers: tuple[Mount, ...]
    unshared: str = ""

    @property
    def shared(self) -> bool:
        """Whether the host sees what is mounted there."""
        return not self.unshared

    @property
    def settled(self) -> bool:
        """Whether our root is there, once, and shared."""
        return self.ours and self.shared and len(self.layers) == 1 and not self.peers


def read(paths: Paths) -> RootState:
    """What is mounted there now; raises OSError if the mount table cannot be read."""
    if paths.mounts is not None:
        seen = Paths()
        return judge(seen, mounttable.read_file(paths.mounts, seen.driver_root))
    if paths.beside is not None:
        return _from_inside(paths)
    return judge(paths, mounttable.read(paths.root, near=paths.driver_root))


def judge(paths: Paths, mounts: Sequence[Mount]) -> RootState:
    """What a mount table says is mounted there."""
    found = mounttable.layers(mounts, paths.driver_root)
    carrier = mounttable.visible(mounts, paths.run)
    group = carrier.shared if carrier is not None else None
    inside = mounttable.below(mounts, paths.driver_root) if found else ()
    return RootState(
        layers=found,
        ours=bool(found) and _same_tree(found[-1], mounttable.visible(mounts, paths.root)),
        peers=tuple(m for m in inside if group is not None and m.shared == group),
        unshared=_unshared(paths, carrier),
    )


def _from_inside(paths: Paths) -> RootState:
    """The same for who looks from the driver root itself, whose own mount table knows nothing of where it is mounted.

    Process 1 has it, the host's or the container's. What is mounted there is ours if it is the root that we see.
    """
    found = mounttable.layers(mounttable.read(paths.root, "1"), Path("/run/nvidia/driver"))
    try:
        ours = os.path.samestat(paths.root.stat(), paths.driver_root.stat())
    except OSError:
        ours = False
    return RootState(layers=found, ours=bool(found) and ours, peers=())


def _unshared(paths: Paths, carrier: Mount | None) -> str:
    if carrier is None or carrier.target == str(paths.root):
        return f"{paths.run} is not a mount of the host's folder"
    if carrier.shared is None:
        return f"{paths.run} is mounted {carrier.propagation}, so the host would not see the driver root"
    return ""


def _same_tree(one: Mount, other: Mount | None) -> bool:
    """Device and folder in it: without overlayfs two containers can share the device."""
    return other is not None and (one.st_dev, one.root) == (other.st_dev, other.root)
