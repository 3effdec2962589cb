"""The driver root: our root file system, published on the host at /run/nvidia/driver exactly once."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driverctr import pidlock
from driverctr.errors import Code, DriverError
from driverctr.facts import mounttable, processes
from driverctr.facts.mounttable import Mount
from driverctr.log import Log
from driverctr.mounts import rootstate, staging
from driverctr.mounts.rootstate import RootState
from driverctr.mounts.syscalls import (
    AT_RECURSIVE,
    MS_BIND,
    MS_REC,
    OPEN_TREE_CLONE,
    Syscalls,
)
from driverctr.paths import Paths
from driverctr.records import field, frozen

STAGING = "mnt/driverctr"
"""In our own root, so that what is mounted there dies with our namespace."""

SHARE_IT = (
    "Share it with the host: `-v /run/nvidia:/run/nvidia:rshared` for docker and podman, "
    "`mountPropagation: Bidirectional` on the hostPath volume in Kubernetes"
)


PATIENCE = 10.0
"""Seconds that another container's own export or withdrawal, the work of a moment, is waited for."""

PAUSE = 0.05
"""Seconds between two looks at whether it has ended."""


def export(paths: Paths, *, log: Log, substitutes: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Publish our root at the driver root, see `DriverRoot.export`; returns what `withdraw` takes."""
    DriverRoot(paths, log).export(substitutes=substitutes)
    return {"target": str(paths.driver_root)}


def withdraw(paths: Paths, data: Mapping[str, Any], *, log: Log, patience: float = PATIENCE) -> None:
    """Undo `export`, also one of a process that was killed: what is ours is observed, not remembered."""
    DriverRoot(paths, log, patience=patience).withdraw()


def clear(paths: Paths, *, log: Log) -> None:
    """Take away every tree at the driver root, whoever published it: for when no driver container lives."""
    DriverRoot(paths, log).clear()


@frozen
class DriverRoot:
    """Publishes and withdraws the driver root; `calls` is where a test puts its own kernel.

    `patience` are the seconds to wait for another who does so.
    """

    paths: Paths = field(default_factory=Paths)
    log: Log = field(default_factory=Log)
    calls: Syscalls = field(default_factory=Syscalls)
    patience: float = PATIENCE

    @property
    def target(self) -> Path:
        """Where neighbours look for the driver."""
        return self.paths.driver_root

    @property
    def place(self) -> Path:
        """Where trees are put together."""
        return self.paths.root / STAGING

    def read(self) -> tuple[Mount, ...]:
        """Our mounts."""
        return mounttable.read(self.paths.root)

    def state(self) -> RootState:
        """What is mounted there now; raises OSError if the mount table cannot be read."""
        return self.judge(self.read())

    def judge(self, mounts: Sequence[Mount]) -> RootState:
        """What a mount table says is mounted there."""
        return rootstate.judge(self.paths, mounts)

    def export(self, substitutes: Mapping[str, Path] | None = None) -> RootState:
        """Publish our root, in place of whatever is there; nobody finds the folder empty meanwhile.

        `substitutes` is what is shown in place of our own, by path. The propagation of our namespace must be settled
        (propagation.settle). May be repeated. Raises DriverError (not-shared, mount-failed).
        """
        self._require_shared()
        with self._guarded("published"), self._locked():
            staging.clear(self.place / "peer", self.calls)
            mounts = self.read()
            replaced = len(self.judge(mounts).layers)
            place = self.place / "root"
            with staging.staged(self.paths.root, place, self.calls, mounts, substitutes) as tree:
                self._publish(tree)
            state = self.state()
        if not state.settled:
            raise DriverError(
                Code.MOUNT_FAILED,
                f"{self.target} should hold our root once, but holds {len(state.layers)} mounts, "
                f"the uppermost {'ours' if state.ours else 'not ours'}",
                "Another program mounts there at the same time: stop it, then restart this container",
            )
        self.log.info(f"driver root published at {self.target}" + (f", {replaced} replaced" if replaced else ""))
        return state

    def withdraw(self) -> bool:
        """Take our root away from the host; a tree of another container stays. True if anything was taken away.

        May be repeated. Raises DriverError (mount-failed).
        """
        with self._guarded("withdrawn"), self._locked():
            staging.clear(self.place / "peer", self.calls)
            staging.clear(self.place / "root", self.calls)
            taken = 0
            while (state := self.state()).ours and taken < 64:
                self.calls.umount(self.target)
                taken += 1
            if state.layers:
                self.log.warning(
                    f"{self.target} holds a tree that is not ours ({state.layers[-1].source}): left as it is"
                )
        return taken > 0

    def clear(self) -> None:
        """Take every layer off; raises DriverError (mount-failed)."""
        with self._guarded("cleared"), self._locked():
            self._peel(keep=0)

    def _require_shared(self) -> None:
        if unshared := self.state().unshared:
            raise DriverError(Code.NOT_SHARED, unshared, SHARE_IT)

    def _publish(self, tree: Path) -> None:
        try:
            clone = self.calls.open_tree(tree, OPEN_TREE_CLONE | AT_RECURSIVE)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            self._publish_with_gap(tree)
            return
        try:
            self._peel(keep=1)
            self._tuck(clone)
        finally:
            os.close(clone)
        self._peel(keep=1)

    def _tuck(self, clone: int) -> None:
        """Slide the tree beneath what is mounted: attached to a peer of /run/nvidia that lacks the mount on `driver`,
        it propagates to everywhere else *under* it (mount_namespaces(7) and the kernel's sharedsubtree.rst)."""
        peer = self.place / "peer"
        peer.mkdir(parents=True, exist_ok=True)
        self.calls.mount(self.paths.run, peer, MS_BIND)
        try:
            (peer / self.target.name).mkdir(exist_ok=True)
            self.calls.move_mount(clone, peer / self.target.name)
        finally:
            staging.clear(peer, self.calls)

    def _publish_with_gap(self, tree: Path) -> None:
        """The way of kernels before 5.2."""
        self.target.mkdir(exist_ok=True)
        before = time.monotonic()
        self._peel(keep=0)
        self.calls.mount(tree, self.target, MS_BIND | MS_REC)
        gap = (time.monotonic() - before) * 1000
        self.log.warning(f"{self.target} was empty for up to {gap:.1f} ms: this kernel (before 5.2) has no open_tree")

    def _peel(self, keep: int) -> None:
        """Take layers off until `keep` are left. Inner peers go first: through them the new tree would go too."""
        state = self._detach_peers()
        for _ in state.layers:
            if len(state.layers) <= keep:
                return
            self.calls.umount(self.target)
            state = self._detach_peers()

    def _detach_peers(self) -> RootState:
        """Take away the peers of /run/nvidia inside the uppermost tree, innermost mounts first; returns what is left.

        The kernel lets an unmount propagate only to mounts without children, so each mount goes by itself: then the
        host's copies go too. With trees stacked by repeated `mount --rbind /` this also takes the hidden lower ones.
        """
        mounts = self.read()
        state = self.judge(mounts)
        for _ in mounts:
            if not state.peers:
                break
            inside = [*state.peers, *(m for peer in state.peers for m in mounttable.below(mounts, Path(peer.target)))]
            parents = {mount.parent for mount in mounts}
            leaves = [m for m in inside if m.id not in parents]
            self.calls.umount(max(leaves, key=lambda mount: len(mount.target)).target)
            mounts = self.read()
            state = self.judge(mounts)
        return state

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One container at a time: the old one's stop must not take away what the new one publishes.

        The folder itself is locked: a lock file would be left behind, or be two files under one name. Anybody can lock
        it, and no signal ends the step that we are in. Raises DriverError (mount-failed), OSError.
        """
        descriptor = os.open(self.paths.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        deadline = time.monotonic() + self.patience
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise DriverError(
                        Code.MOUNT_FAILED,
                        f"{self.paths.run} was locked for {self.patience:.0f} s by {self._describe_locker()}",
                        "Driver containers lock it for moments; end that process, or wait for it, then start again",
                    )
                time.sleep(PAUSE)
            yield
        finally:
            os.close(descriptor)

    def _describe_locker(self) -> str:
        """By the kernel's word, where that process is to be seen."""
        pid = pidlock.holder(self.paths.run, self.paths.proc / "locks")
        process = processes.read(self.paths, pid) if pid is not None else None
        if process is None:
            return "a process that is not visible from here" if pid is None else f"pid {pid}, which has ended"
        return f"pid {process.pid} ({processes.read_command(self.paths, process)})"

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DriverError(
                Code.MOUNT_FAILED,
                f"the driver root at {self.target} could not be {what}: {error.strerror}",
                _remedy(error),
            ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remedy(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "Run the container privileged: mounting needs CAP_SYS_ADMIN"
    if error.errno == errno.EROFS:
        return f"Give a writable /{Path(STAGING).parent}: `--tmpfs /{Path(STAGING).parent}`"
    return ""
