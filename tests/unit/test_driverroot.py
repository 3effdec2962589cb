"""The driver root: published once, whatever was there; withdrawn only if ours; after death at any call, put right."""

import errno
import subprocess
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.mounts import propagation
from driverctr.mounts.driverroot import DriverRoot
from driverctr.paths import Paths
from tests.unit.conftest import make_tree
from tests.unit.fake_mounts import FakeKernel, Killed

OURS, THEIRS, RUN = 41, 42, 50
GROUP = 7


def container(paths: Paths, lives: int = 10**6) -> FakeKernel:
    """A privileged container as runtimes make it."""
    kernel = FakeKernel(paths.root, lives)
    kernel.add("", OURS, "overlay")
    for name, device in (("proc", 43), ("sys", 44), ("sys/fs/cgroup", 45), ("dev", 46), ("dev/pts", 47)):
        kernel.add(name, device, name)
    kernel.add("run/nvidia", RUN, shared=GROUP)
    return kernel


def root_of(paths: Paths, kernel: FakeKernel) -> DriverRoot:
    """The mechanism, with a log to read."""
    return DriverRoot(paths, Log(stream=StringIO()), kernel)


def log_of(root: DriverRoot) -> str:
    """What was said."""
    assert isinstance(root.log.stream, StringIO)
    return root.log.stream.getvalue()


def targets(kernel: FakeKernel, below: str) -> list[str]:
    """Mount points below a folder of the fake root."""
    names = [str(Path(m.target).relative_to(kernel.root)) for m in kernel.mounts]
    return sorted(name for name in names if name.startswith(below))


def test_first_export_publishes_one_tree(paths: Paths) -> None:
    kernel = container(paths)
    propagation.settle(paths, kernel)
    state = root_of(paths, kernel).export()
    assert state.settled and len(state.layers) == 1
    # /sys/fs/cgroup is left out, as NVIDIA's container leaves it out; nothing else of ours is in it.
    assert targets(kernel, "run/nvidia/") == [
        "run/nvidia/driver",
        *(f"run/nvidia/driver/{name}" for name in ("dev", "dev/pts", "proc", "sys")),
    ]
    assert targets(kernel, "mnt/") == []


def test_export_again_replaces_without_ever_leaving_the_folder_empty(paths: Paths) -> None:
    kernel = container(paths)
    root = root_of(paths, kernel)
    root.export()
    seen: list[int] = []
    umount = kernel.umount

    def watched(target: str | Path, flags: int = 2) -> None:
        umount(target, flags)
        seen.append(len(root.state().layers))

    kernel.umount = watched  # type: ignore[method-assign]  # a fake
    assert root.export().settled
    assert min(seen) == 1


@pytest.mark.parametrize("stacked", [1, 2, 3])
def test_foreign_trees_are_replaced(paths: Paths, stacked: int) -> None:
    kernel = container(paths)
    for _ in range(stacked):
        kernel.add("run/nvidia/driver", THEIRS, "overlay")
        kernel.add("run/nvidia/driver/proc", 43)
    root = root_of(paths, kernel)
    assert not root.state().ours and len(root.state().layers) == stacked
    assert root.export().settled
    assert f"{stacked} replaced" in log_of(root)


def test_a_peer_of_run_nvidia_inside_the_old_tree_goes_first(paths: Paths) -> None:
    kernel = container(paths)
    kernel.add("run/nvidia/driver", THEIRS, "overlay")
    kernel.add("run/nvidia/driver/run/nvidia", RUN, shared=GROUP)
    root = root_of(paths, kernel)
    assert [Path(m.target) for m in root.state().peers] == [paths.driver_root / "run/nvidia"]
    assert root.export().settled
    undone = [call for call in kernel.calls if call.startswith(("umount /run", "move_mount"))]
    assert undone == [
        "umount /run/nvidia/driver/run/nvidia",
        "move_mount /mnt/driverctr/peer/driver",
        "umount /run/nvidia/driver",
    ]


def test_secrets_of_the_image_are_covered_and_links_are_not_followed(paths: Paths) -> None:
    kernel = container(paths)
    stage = paths.root / "mnt/driverctr/root"
    for name in ("run/secrets", "drivers"):
        (stage / name).mkdir(parents=True)
    (stage / "var").mkdir()
    (stage / "var/run").symlink_to("/run")
    root_of(paths, kernel).export()
    assert {"run/nvidia/driver/run/secrets", "run/nvidia/driver/drivers"} <= set(targets(kernel, "run/nvidia/"))
    assert not [call for call in kernel.calls if "var/run" in call]


def test_what_mounts_hide_and_neighbours_need_is_carried(paths: Paths) -> None:
    kernel = container(paths)
    kernel.add("lib/modules/6.1/kernel", 60)
    kernel.add("run/secrets/token", 61)
    root_of(paths, kernel).export()
    published = targets(kernel, "run/nvidia/driver/")
    assert "run/nvidia/driver/lib/modules" in published
    assert not [name for name in published if "token" in name]


@pytest.mark.parametrize("shared", [None, "no mount"])
def test_a_folder_not_shared_with_the_host_is_refused_with_the_flag(paths: Paths, shared: str | None) -> None:
    kernel = FakeKernel(paths.root)
    kernel.add("", OURS)
    if shared is None:
        kernel.add("run/nvidia", RUN)
    with pytest.raises(DriverError) as caught:
        root_of(paths, kernel).export()
    assert caught.value.code is Code.NOT_SHARED
    assert "-v /run/nvidia:/run/nvidia:rshared" in caught.value.remedy
    assert "mountPropagation: Bidirectional" in caught.value.remedy
    assert kernel.calls == []


@pytest.mark.parametrize("before", [0, 2])
def test_a_kernel_without_open_tree_gets_a_plain_bind_and_the_gap_is_told(paths: Paths, before: int) -> None:
    kernel = container(paths)
    for _ in range(before):
        kernel.add("run/nvidia/driver", THEIRS)
    kernel.refuse["open_tree"] = errno.ENOSYS
    root = root_of(paths, kernel)
    assert root.export().settled
    assert "before 5.2" in log_of(root) and " ms" in log_of(root)


def test_another_refusal_of_open_tree_is_an_error(paths: Paths) -> None:
    kernel = container(paths)
    kernel.refuse["open_tree"] = errno.EPERM
    with pytest.raises(DriverError, match="privileged"):
        root_of(paths, kernel).export()
    assert targets(kernel, "mnt/") == []


def test_withdraw_takes_ours_only(paths: Paths) -> None:
    kernel = container(paths)
    root = root_of(paths, kernel)
    root.export()
    assert root.withdraw() is True
    assert targets(kernel, "run/nvidia/") == [] and root.withdraw() is False
    assert {"proc", "dev", "dev/pts"} <= set(targets(kernel, ""))
    kernel.add("run/nvidia/driver", THEIRS)
    assert root.withdraw() is False
    assert len(root.state().layers) == 1 and "not ours" in log_of(root)


def test_same_device_but_another_folder_is_not_ours(paths: Paths) -> None:
    kernel = container(paths)
    kernel.add("run/nvidia/driver", OURS, root="/containers/other")
    assert not root_of(paths, kernel).state().ours


def test_killed_at_any_call_the_next_export_ends_with_one_tree_and_nothing_staged(paths: Paths) -> None:
    kernel = container(paths)
    root_of(paths, kernel).export()
    calls = len(kernel.calls)
    assert calls >= 15
    for lives in range(calls + 4):
        dying = container(paths)
        dying.add("run/nvidia/driver", THEIRS, "overlay")
        dying.lives = lives
        try:
            root_of(paths, dying).export()
        except Killed:
            assert root_of(paths, dying).state().layers, f"the folder was empty after {dying.calls[-1:]}"
        dying.lives = 10**6
        assert root_of(paths, dying).export().settled, lives
        assert targets(dying, "mnt/") == [], lives
        root_of(paths, dying).withdraw()
        assert targets(dying, "run/nvidia/") == [], lives
        assert {"proc", "dev", "dev/pts", "sys"} <= set(targets(dying, "")), lives


def test_propagation_leaves_run_nvidia_shared_and_the_rest_receiving(paths: Paths) -> None:
    kernel = FakeKernel(paths.root)
    kernel.add("", OURS, "overlay", shared=1)
    for name, group in (("sys", 2), ("sys/fs/cgroup", 3), ("run/mellanox/drivers", 4), ("run/nvidia", GROUP)):
        kernel.add(name, 50 + group, shared=group)
    kernel.add("run/nvidia/driver", THEIRS, shared=9)
    for _ in range(2):
        propagation.settle(paths, kernel)
        words = {str(Path(m.target).relative_to(paths.root)): m.propagation for m in kernel.mounts}
        assert words == {
            ".": "private",
            "sys": "private",
            "sys/fs/cgroup": "unbindable",
            "run/mellanox/drivers": "slave",
            "run/nvidia": "shared",
            "run/nvidia/driver": "shared",
        }


def test_propagation_without_privilege_is_said(paths: Paths) -> None:
    kernel = container(paths)
    kernel.refuse["mount"] = errno.EPERM
    with pytest.raises(DriverError, match="privileged"):
        propagation.settle(paths, kernel)


@pytest.mark.timeout(20)
@pytest.mark.allow_process("flock")
def test_who_keeps_the_folder_locked_is_named_and_not_waited_for_long(paths: Paths) -> None:
    kernel = container(paths)
    root = replace(root_of(paths, kernel), patience=0.2)
    command = ["flock", str(paths.run), "sh", "-c", "echo locked; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as locker:
        assert locker.stdout and locker.stdout.readline() == "locked\n"
        (paths.proc / "locks").write_text(Path("/proc/locks").read_text())
        state = f"{locker.pid} (flock) S 1 " + "0 " * 40
        make_tree(paths.proc / str(locker.pid), {"stat": state, "cmdline": "flock\0x"})
        for act in (root.export, root.withdraw, root.clear):
            with pytest.raises(DriverError, match=rf"locked for 0 s by pid {locker.pid} \(flock x\)") as error:
                act()
            assert error.value.code is Code.MOUNT_FAILED and "end that process" in error.value.remedy
        (paths.proc / "locks").write_text("")
        with pytest.raises(DriverError, match="by a process that is not visible from here"):
            root.export()
        assert kernel.calls == []
        locker.communicate("\n")
    assert root.export().settled


@pytest.mark.allow_process("flock")
def test_a_folder_that_another_locks_for_a_moment_is_waited_for(paths: Paths) -> None:
    kernel = container(paths)
    command = ["flock", str(paths.run), "sh", "-c", "echo locked; sleep 0.3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as locker:
        assert locker.stdout and locker.stdout.readline() == "locked\n"
        assert root_of(paths, kernel).export().settled
        assert locker.wait() == 0
