"""What keeps modules from being built for the next kernel, or from lasting: no store, no room, another's build."""

import errno
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from driverctr import ahead, nextkernels
from driverctr.errors import Code, DriverError, Stopped
from driverctr.modules.drafts import Draft
from driverctr.modules.key import Key
from driverctr.signals import Signals
from driverctr.steps import Tools
from driverctr.versions import KernelRelease
from tests.unit.conftest import make_tree
from tests.unit.stored import make_draft
from tests.unit.test_ahead import DRIVER, NEWEST, Node
from tests.unit.test_ahead import node as node
from tests.unit.test_installed_kernels import LATER, NEXT, RUNNING, VERSION, headers_files, place_image
from tests.unit.test_store_crash import raising


def without_a_store(node: Node) -> Path:
    """Take its place away; where the modules are kept instead."""
    (node.paths.root / "var/lib/driverctr").rmdir()
    return node.paths.root / f"modules/{NEXT}/{DRIVER}-proprietary"


def test_without_a_store_the_modules_lie_where_a_start_looks_for_them(node: Node) -> None:
    folder = without_a_store(node)
    assert node.update() == folder
    assert "there is no store" in node.log
    assert node.update() == folder and len(node.asked) == 1
    (folder / "nvidia.ko").write_text("damaged")
    node.update()
    assert len(node.asked) == 2
    assert node.rows()[NEXT]["modules"] == f"on disk: {folder}"


@pytest.mark.parametrize("target", ["/", "/modules"])
def test_without_a_store_it_is_said_plainly_whether_the_modules_outlive_the_container(node: Node, target: str) -> None:
    folder = without_a_store(node)
    mounts = "1 0 0:1 / / rw - overlay overlay rw\n"
    mounts += "" if target == "/" else f"2 1 0:2 / {node.paths.root}{target} rw - ext4 /dev/sda rw\n"
    make_tree(node.paths.root, {"proc/self/mountinfo": mounts})
    node.update()
    goes = f"WARNING the modules for kernel {NEXT} lie in {folder}, which goes with this container: mount a folder"
    assert (goes in node.log) == (target == "/")
    assert (f"INFO    the modules for kernel {NEXT} are ready in {folder}" in node.log) == (target != "/")


def test_without_a_store_too_headers_about_to_be_replaced_are_not_built_with(node: Node) -> None:
    without_a_store(node)
    make_tree(node.host, headers_files(NEXT, VERSION))
    with pytest.raises(DriverError, match="are of the build"):
        node.update()
    assert node.asked == []


@pytest.mark.parametrize("stored", [True, False])
def test_the_remote_folder_is_asked_before_a_build(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored: bool
) -> None:
    if not stored:
        without_a_store(node)
    wanted = nextkernels.foresee(node.paths, node.tools.config, KernelRelease(NEXT)).key

    @contextmanager
    def remote(tools: Tools, key: Key) -> Iterator[Draft]:
        assert key == wanted
        yield Draft(make_draft(tmp_path / "fetched", key), {"remote": "https://there"}, key=key)

    monkeypatch.setattr(ahead, "fetched", remote)
    folder = node.update()
    assert folder is not None and node.asked == [] and (folder / "nvidia-uvm.ko").is_file()
    assert not stored or node.entry().provenance == {"remote": "https://there"}


Room = Callable[[Node, pytest.MonkeyPatch], object]


def free(size: int, below: str) -> Room:
    """A disk with so many bytes left."""

    def act(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        (node.paths.root / "var/tmp").mkdir(parents=True)
        real = os.statvfs

        def statvfs(path: Path) -> object:
            found = real(path)
            inside = Path(path).is_relative_to(node.paths.root / below)
            return SimpleNamespace(f_bavail=size, f_frsize=1) if inside else found

        monkeypatch.setattr(os, "statvfs", statvfs)

    return act


@pytest.mark.parametrize(
    ("arrange", "code", "says"),
    [
        (free(900_000_000, "var/tmp"), Code.NO_SPACE, "0.9 GB free in .*var/tmp, and a build takes 1.0 GB"),
        (
            lambda node, _: make_tree(node.paths.root, {"proc/meminfo": "MemAvailable: 300000 kB\n"}),
            Code.NO_MEMORY,
            "307 MB of memory, and a build takes 400 MB",
        ),
        (free(9_000_000, "var/lib/driverctr"), Code.NO_SPACE, "9 MB free in .*/store/stage/.*takes 150 MB"),
        (
            lambda node, patch: patch.setattr(tempfile, "mkdtemp", raising(errno.EROFS, instead=tempfile.mkdtemp)),
            Code.STORE_UNUSABLE,
            "cannot be written: .*Read-only file system",
        ),
    ],
)
def test_no_build_begins_where_it_could_not_end_well(
    node: Node, monkeypatch: pytest.MonkeyPatch, arrange: Room, code: Code, says: str
) -> None:
    arrange(node, monkeypatch)
    with pytest.raises(DriverError, match=says) as refused:
        node.update()
    assert refused.value.code is code and refused.value.remedy and node.asked == []


@pytest.mark.parametrize(
    ("arrange", "code"),
    [
        (free(9_000_000, "modules"), Code.NO_SPACE),
        (lambda node, _: make_tree(node.paths.root, {"modules/.update.lock/in the way": ""}), Code.NODE_FILE),
    ],
)
def test_without_a_store_no_build_begins_where_its_modules_could_not_be_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch, arrange: Room, code: Code
) -> None:
    without_a_store(node)
    arrange(node, monkeypatch)
    with pytest.raises(DriverError, match="modules") as refused:
        node.update()
    assert refused.value.code is code and node.asked == []


@pytest.mark.parametrize("stored", [True, False])
def test_only_one_is_built_for_at_a_time_whoever_asks(
    node: Node, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    if not stored:
        without_a_store(node)
    first = node.tools

    def other(seconds: float) -> NoReturn:
        raise Stopped(signal.SIGTERM)

    def ask_for_another() -> None:
        """While one is built: another waits, killable and told; who finds his modules there does not."""
        node.meanwhile = lambda: None
        monkeypatch.setattr(Signals, "sleep", lambda self, seconds, *wakers: other(seconds))
        with pytest.raises(Stopped):
            ahead.update(first, NEXT)
        assert len(node.asked) == 2, "the running kernel's, and the newest"
        assert ahead.update(first, RUNNING)

    make_tree(node.host, {f"lib/modules/{NEWEST}/modules.builtin": ""})
    place_image(node.host, NEWEST, LATER)
    node.headers_version = VERSION
    node.update(RUNNING)
    node.headers_version, node.meanwhile = LATER, ask_for_another
    node.update(NEWEST)
    assert [wish.kernel_release for wish, _ in node.asked] == [RUNNING, NEWEST]
    assert f"are being built by pid {os.getpid()} of" in node.log and node.log.count("; waiting for it") == 1
