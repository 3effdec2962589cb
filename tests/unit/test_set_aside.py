"""The host's module folder, mounted over ours: moved off, and found where it went."""

from pathlib import Path

import pytest

from driverctr import moduletree
from driverctr.facts import hostroot, mounttable
from driverctr.paths import Paths
from tests.unit.conftest import make_tree
from tests.unit.fake_mounts import FakeKernel

RELEASE = "6.1.0-56-amd64"


@pytest.fixture
def kernel(paths: Paths) -> FakeKernel:
    """Our namespace, /lib a link as in the image."""
    make_tree(paths.root, {"usr/lib": None, "lib": "-> usr/lib"})
    made = FakeKernel(paths.root)
    made.add("", 41)
    return made


def mounted(paths: Paths, kernel: FakeKernel) -> dict[str, int]:
    """The file system at each mount point."""
    return {str(Path(m.target).relative_to(paths.root)): m.st_dev for m in kernel.mounts}


def test_a_mount_over_all_modules_is_moved_with_what_is_mounted_below(paths: Paths, kernel: FakeKernel) -> None:
    kernel.add("usr/lib/modules", 50)
    kernel.add("usr/lib/modules/other", 51)
    moduletree.set_aside(paths, RELEASE, kernel)
    aside = f"{hostroot.ASIDE}/lib/modules"
    assert mounted(paths, kernel) == {".": 41, aside: 50, f"{aside}/other": 51}
    calls = list(kernel.calls)
    moduletree.set_aside(paths, RELEASE, kernel)
    assert kernel.calls == calls


def test_a_mount_over_the_modules_of_one_kernel_is_moved_alone(paths: Paths, kernel: FakeKernel) -> None:
    kernel.add(f"usr/lib/modules/{RELEASE}", 50)
    moduletree.set_aside(paths, RELEASE, kernel)
    assert mounted(paths, kernel) == {".": 41, f"{hostroot.ASIDE}/lib/modules/{RELEASE}": 50}


def test_the_hosts_modules_are_found_there(paths: Paths, kernel: FakeKernel) -> None:
    kernel.add("usr/lib/modules", 50)
    make_tree(paths.root, {f"usr/lib/modules/{RELEASE}/modules.builtin": ""})
    before = moduletree.host_place(paths, RELEASE)
    assert before is not None and before.reach is hostroot.Reach.OWN
    moduletree.set_aside(paths, RELEASE, kernel)
    # The fake kernel binds no content; what is left in place is our own by now.
    make_tree(paths.root, {f"{hostroot.ASIDE}/lib/modules/{RELEASE}/modules.builtin": ""})
    after = moduletree.host_place(paths, RELEASE)
    assert after is not None and after.path == paths.root / hostroot.ASIDE
    assert mounttable.layers(kernel.mounts, paths.root / "usr/lib/modules") == ()
    assert after.resolve(Path("/usr/lib")) == paths.root / "usr/lib"


def test_without_such_a_mount_nothing_is_done(paths: Paths, kernel: FakeKernel) -> None:
    make_tree(paths.root, {f"usr/lib/modules/{RELEASE}": None})
    moduletree.set_aside(paths, RELEASE, kernel)
    assert kernel.calls == [] and not (paths.root / hostroot.ASIDE).exists()
