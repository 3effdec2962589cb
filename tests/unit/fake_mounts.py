"""A kernel of one mount namespace, for unit tests: stacks, binds, peers, propagation, tucking beneath.

It keeps proc/self/mountinfo of a fake root up to date, with the paths of that root in it.
"""

import errno
import itertools
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from driverctr.facts import mounttable
from driverctr.facts.mounttable import Mount
from driverctr.mounts import syscalls
from driverctr.mounts.syscalls import Syscalls, Where


class Killed(BaseException):
    """The process ended at this call: nothing after it happens, no clean-up either."""


class FakeKernel(Syscalls):
    """Records calls; `refuse` maps the name of a call to an errno; after `lives` calls the process is dead."""

    def __init__(self, root: Path, lives: int = 10**6) -> None:
        self.root = root
        self.calls: list[str] = []
        self.refuse: dict[str, int] = {}
        self.lives = lives
        self.mounts: list[Mount] = []
        self.ids = itertools.count(100)
        self.groups = itertools.count(1000)
        self.trees: dict[int, list[Mount]] = {}
        (root / "proc/self").mkdir(parents=True, exist_ok=True)

    def add(self, target: str, st_dev: int, fstype: str = "tmpfs", shared: int | None = None, root: str = "/") -> Mount:
        """Something mounted already; the folder is made."""
        path = self.root / target
        path.mkdir(parents=True, exist_ok=True)
        parent = mounttable.visible(self.mounts, path)
        mount = Mount(
            next(self.ids),
            parent.id if parent else 1,
            st_dev,
            root,
            str(path),
            "rw",
            shared,
            None,
            False,
            fstype,
            fstype,
        )
        self._attach([mount])
        return self.mounts[-1]

    def mount(
        self, source: Where | None, target: Where, flags: int, fstype: str | None = None, data: str | None = None
    ) -> None:
        self._called("mount", f"{source} {target} {flags:#x}")
        if source is None:
            self._change(Path(target), flags)
        elif flags & syscalls.MS_BIND:
            self._attach(self._copy(Path(source), Path(target), bool(flags & syscalls.MS_REC)))
        else:
            self.add(str(Path(target).relative_to(self.root)), 99, str(fstype))

    def umount(self, target: Where, flags: int = syscalls.MNT_DETACH) -> None:
        self._called("umount", str(target))
        stack = mounttable.layers(self.mounts, Path(target))
        if not stack:
            raise OSError(errno.EINVAL, "Invalid argument")
        victims = [stack[-1], *self._descendants(stack[-1])]
        for victim in reversed(victims):
            self._remove(victim, {mount.id for mount in victims})
        self._write()

    def open_tree(self, path: Where, flags: int) -> int:
        self._called("open_tree", str(path))
        descriptor = os.open(os.devnull, os.O_RDONLY)
        self.trees[descriptor] = self._copy(Path(path), Path(path), True)
        return descriptor

    def move_mount(self, descriptor: int, target: Where) -> None:
        self._called("move_mount", str(target))
        tree = self.trees.pop(descriptor)
        self._attach(self._rebase(tree, Path(tree[0].target), Path(target)))

    def _called(self, name: str, words: str) -> None:
        if len(self.calls) >= self.lives:
            raise Killed
        self.calls.append(f"{name} {words}".replace(str(self.root), "").strip())
        if name in self.refuse:
            raise OSError(self.refuse[name], os.strerror(self.refuse[name]))

    def _change(self, target: Path, flags: int) -> None:
        stack = mounttable.layers(self.mounts, target)
        if not stack:
            raise OSError(errno.EINVAL, "Invalid argument")
        chosen = [stack[-1], *(self._descendants(stack[-1]) if flags & syscalls.MS_REC else [])]
        for mount in chosen:
            master = mount.shared if flags & syscalls.MS_SLAVE else None
            changed = replace(mount, shared=None, master=master, unbindable=bool(flags & syscalls.MS_UNBINDABLE))
            self.mounts[self.mounts.index(mount)] = changed
        self._write()

    def _copy(self, source: Path, target: Path, recursive: bool) -> list[Mount]:
        origin = mounttable.visible(self.mounts, source)
        assert origin is not None
        inner = PurePosixPath(origin.root) / source.relative_to(origin.target)
        top = replace(origin, id=next(self.ids), root=str(inner), target=str(source))
        parts = [top]
        known = {origin.id: top.id}
        for mount in self._descendants(origin) if recursive else []:
            if mount.parent in known and PurePosixPath(mount.target).is_relative_to(source) and not mount.unbindable:
                parts.append(replace(mount, id=next(self.ids), parent=known[mount.parent]))
                known[mount.id] = parts[-1].id
        return self._rebase(parts, source, target)

    def _rebase(self, tree: list[Mount], old: Path, new: Path) -> list[Mount]:
        return [replace(m, target=str(new / PurePosixPath(m.target).relative_to(old))) for m in tree]

    def _attach(self, tree: list[Mount]) -> None:
        target = Path(tree[0].target)
        parent = mounttable.visible(self.mounts, target)
        if parent is not None and parent.shared is not None:
            tree = [m if m.shared else replace(m, shared=next(self.groups)) for m in tree]
            inner = PurePosixPath(target).relative_to(parent.target)
            peers = [m for m in self.mounts if m.shared == parent.shared and m.id != parent.id]
            for peer in peers:
                self._attach_beneath(tree, target, peer, Path(peer.target) / inner)
        self.mounts.append(replace(tree[0], parent=parent.id if parent else 1))
        self.mounts += tree[1:]
        self._write()

    def _attach_beneath(self, tree: list[Mount], old: Path, peer: Mount, new: Path) -> None:
        renumbered = {mount.id: next(self.ids) for mount in tree}
        copies = [
            replace(m, id=renumbered[m.id], parent=renumbered.get(m.parent, peer.id))
            for m in self._rebase(tree, old, new)
        ]
        self.mounts = [
            replace(m, parent=copies[0].id) if m.parent == peer.id and m.target == str(new) else m for m in self.mounts
        ] + copies

    def _remove(self, victim: Mount, victims: set[int]) -> None:
        parent = next((m for m in self.mounts if m.id == victim.parent), None)
        self._drop(victim)
        if parent is None or parent.shared is None:
            return
        inner = PurePosixPath(victim.target).relative_to(parent.target)
        for peer in [m for m in self.mounts if m.shared == parent.shared and m.id != parent.id]:
            for twin in [
                m for m in self.mounts if m.parent == peer.id and m.target == str(PurePosixPath(peer.target) / inner)
            ]:
                children = [m for m in self.mounts if m.parent == twin.id and m.target != twin.target]
                if twin.id not in victims and not children:
                    self._drop(twin)

    def _drop(self, victim: Mount) -> None:
        kept = [m for m in self.mounts if m.id != victim.id]
        self.mounts = [
            replace(m, parent=victim.parent) if m.parent == victim.id and m.target == victim.target else m for m in kept
        ]

    def _descendants(self, mount: Mount) -> list[Mount]:
        found: list[Mount] = []
        for child in [m for m in self.mounts if m.parent == mount.id and m.id != mount.id]:
            found += [child, *self._descendants(child)]
        return found

    def _write(self) -> None:
        lines = [mountinfo_line(mount) for mount in self.mounts]
        (self.root / "proc/self/mountinfo").write_text("\n".join(lines) + "\n")


def mountinfo_line(mount: Mount) -> str:
    """As the kernel writes it."""
    tags = [f"shared:{mount.shared}" if mount.shared else "", f"master:{mount.master}" if mount.master else ""]
    optional = " ".join(tag for tag in [*tags, "unbindable" if mount.unbindable else ""] if tag)
    device = f"{os.major(mount.st_dev)}:{os.minor(mount.st_dev)}"
    head = f"{mount.id} {mount.parent} {device} {mount.root} {mount.target} {mount.options}"
    return f"{head} {optional + ' ' if optional else ''}- {mount.fstype} {mount.source} rw"
