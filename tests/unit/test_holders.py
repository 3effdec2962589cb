"""Who uses the driver: found by device number, described by identity, and nobody innocent."""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from driverctr import config as settings
from driverctr import statusview, survey
from driverctr.facts import holders, openfiles, processes
from driverctr.facts.handles import Scanner
from driverctr.facts.holders import LISTED, Holder, InUse
from driverctr.facts.modules import LoadedModule
from driverctr.facts.openfiles import LESS, SAME, Descriptor, OpenFiles
from driverctr.facts.processes import Process
from driverctr.modules import Source
from driverctr.modules.loaded import Loaded
from driverctr.modules.supply import Search, Supply
from driverctr.paths import Paths
from tests.unit.conftest import make_tree
from tests.unit.good_node import facts
from tests.unit.test_module_keys import KERNEL

GOOD = facts()

ID = "3f" * 32
MOUNTS = "21 1 0:5 / /dev rw - devtmpfs udev rw\n22 1 0:40 / /data rw shared:1 - nfs4 server:/x rw\n"
PTMX_MAJOR = 5
"""admin-guide/devices.txt: /dev/ptmx and /dev/tty; a driver of its own as good as any."""

STARTED = 4200
"""Ticks since a boot at second 1000."""


def stack(**refcnts: int) -> dict[str, LoadedModule]:
    """Loaded modules that hold one another not."""
    return {name: LoadedModule(name, "535.1", "", "", "live", refcnt, ()) for name, refcnt in refcnts.items()}


def process(paths: Paths, pid: int, files: Mapping[str, str | None] = {}, *, started: int = STARTED) -> None:
    """A process in a tree: `sleep 1000`, started at the given tick."""
    base = f"proc/{pid}"
    make_tree(
        paths.root,
        {
            f"{base}/stat": f"{pid} (a) b) S {' 0' * 18} {started} 0 0\n",
            f"{base}/cmdline": "sleep\0001000\0",
            f"{base}/mountinfo": MOUNTS,
            f"{base}/ns/mnt": "-> mnt:[1]",
            **{f"{base}/{name}": text for name, text in files.items()},
        },
    )


@pytest.fixture
def node(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A node where the real null device is nvidia-frontend's, and each descriptor an open file of its own."""
    monkeypatch.setattr(openfiles, "compare", lambda *of: LESS if (of[0], of[2]) < (of[1], of[3]) else 2)
    make_tree(paths.root, {"proc/devices": "Character devices:\n  1 nvidia-frontend\n\nBlock devices:\n  1 nvidia\n"})
    make_tree(paths.root, {"proc/stat": "cpu 1\nbtime 1000\n"})
    return paths


def pids(paths: Paths, **refcnts: int) -> list[int]:
    return [holder.pid for holder in holders.read(paths, stack(**(refcnts or {"nvidia": 9})))]


def test_a_holder_is_found_by_the_device_number_and_described(node: Paths) -> None:
    process(node, 7, {"fd/3": "-> /dev/null", "cgroup": f"0::/docker/{ID}\n"})
    process(node, 8, {"fd/0": "-> /etc/passwd", "fd/1": "-> pipe:[1]", "fd/2": "-> /dev/full/x"})
    make_tree(node.root, {"proc/9": None, "proc/sys": None})
    (found,) = holders.read(node, stack(nvidia=3))
    assert found.identity == (7, STARTED) and dict(found.handles) == {"nvidia": 3}
    assert str(found) == f"pid 7 (sleep 1000) [docker container {ID[:12]}, since 1970-01-01 00:17:22 UTC]"
    assert found.as_dict()["container"]["id"] == ID


def test_where_our_daemons_have_every_reference_nobody_else_is_looked_at(
    node: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(node, 7, {"fd/3": "-> /dev/null"})
    process(node, 8, {"fd/3": "-> /dev/null"})
    looked: list[int] = []
    real = Scanner.open_files

    def open_files(scanner: Scanner, pid: int) -> Counter[str]:
        looked.append(pid)
        return real(scanner, pid)

    monkeypatch.setattr(Scanner, "open_files", open_files)
    ours = [(7, STARTED)]
    assert [holder.pid for holder in holders.read(node, stack(nvidia=3), ours)] == [7]
    assert set(looked) == {7}
    assert [holder.pid for holder in holders.read(node, stack(nvidia=6), ours)] == [7, 8]
    assert [use.by[0].pid for use in holders.look(node, ours, stack(nvidia=6))] == [8]
    # What another process has of the pid now holds nothing for us.
    assert [holder.pid for holder in holders.read(node, stack(nvidia=6), [(9, STARTED)])] == [7, 8]


def test_another_vendors_device_and_a_module_nobody_holds_blame_nobody(node: Paths) -> None:
    process(node, 7, {"fd/3": "-> /dev/null"})
    assert pids(node, nvidia=0) == [] and holders.read(node, {}) == ()
    (node.proc / "devices").write_text("Character devices:\n  1 mem\n195 nvidia\n")
    assert pids(node) == []


NULL = "/proc/self/root/dev/null"
"""The null device under a name that is not below /dev."""


@pytest.mark.parametrize(
    ("fdinfo", "found"),
    [
        ("pos:\t0\nflags:\t0100002\nmnt_id:\t21\n", [7]),
        ("pos:\t0\nflags:\t0100002\nmnt_id:\t22\n", []),
        ("pos:\t0\nflags:\t0100002\nmnt_id:\t99\n", []),
        ("pos:\t0\nflags:\t012000000\nmnt_id:\t21\n", []),
    ],
    ids=["another name", "on NFS: never asked", "on a detached mount", "O_PATH"],
)
def test_a_node_of_another_name_is_found_where_its_file_system_answers(
    node: Paths, fdinfo: str, found: list[int]
) -> None:
    process(node, 7, {"fd/3": f"-> {NULL}", "fdinfo/3": fdinfo})
    assert pids(node) == found


def test_a_descriptor_that_only_names_the_node_holds_nothing(node: Paths) -> None:
    process(node, 7, {"fd/3": "-> /dev/null", "fdinfo/3": f"flags:\t{os.O_PATH:o}\n"})
    assert pids(node) == []


def test_a_pid_given_again_between_scan_and_description_is_not_blamed(
    node: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(node, 7, {"fd/3": "-> /dev/null"})
    ticks = iter(range(100))
    monkeypatch.setattr(processes, "read", lambda paths, pid: Process(pid, "sleep", "S", next(ticks)))
    assert holders.read(node, stack(nvidia=3)) == ()


MAPS = (
    "00400000-00452000 rw-s 00000000 00:05 321                        /dev/null\n"
    "7f0000000000-7f0000001000 rw-s 00001000 00:05 321                /dev/null\n"
    "7f0000002000-7f0000003000 rw-p 00000000 00:00 0                  [heap]\n"
    "7f0000004000-7f0000005000 r-xp 00000000 00:28 8                  /data/dead-server/lib.so\n"
)


def test_a_mapping_kept_with_the_file_closed_is_found_only_where_open_files_do_not_explain_the_refcnt(
    node: Paths,
) -> None:
    process(node, 7, {"maps": MAPS, "map_files/400000-452000": f"-> {NULL}"})
    process(node, 8, {"maps": MAPS, "map_files/7f0000004000-7f0000005000": f"-> {NULL}"}, started=1)
    process(node, 9, {"fd/3": "-> /dev/null"})
    assert pids(node, nvidia=3) == [9]
    found = {holder.pid: holder for holder in holders.read(node, stack(nvidia=9))}
    assert set(found) == {7, 8, 9} and [found[pid].closed for pid in (7, 8, 9)] == [True, True, False]
    assert dict(found[7].handles) == {"nvidia": 3}
    assert "[by a mapping alone, since" in str(found[7])


def test_a_mapping_of_a_file_on_a_dead_server_is_not_asked(node: Paths) -> None:
    process(node, 7, {"maps": MAPS.splitlines()[3], "map_files/7f0000004000-7f0000005000": f"-> {NULL}"})
    assert pids(node) == []


def test_a_holder_by_file_and_another_module_by_mapping_is_told_whole(node: Paths) -> None:
    (node.proc / "devices").write_text("Character devices:\n  1 nvidia-uvm\n  5 nvidia\n")
    files = {"fd/3": "-> /dev/null", "maps": MAPS.replace("/dev/null", "/dev/nvidia0")}
    process(node, 7, {**files, "map_files/400000-452000": "-> /dev/tty"})
    (found,) = holders.read(node, stack(nvidia=2, nvidia_uvm=2))
    assert dict(found.handles) == {"nvidia": 2, "nvidia_uvm": 2} and not found.closed


def test_an_open_file_that_several_share_is_counted_once_and_hides_nobody(
    node: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7 forked 8, and 7 has a dup(2); who has it by a mapping alone would be hidden by counting twice."""
    same = {(7, 3): 1, (7, 4): 1, (8, 3): 1, (8, 5): 2}

    def compare(pid: int, other: int, descriptor: int, other_descriptor: int) -> int:
        one, two = same[pid, descriptor], same[other, other_descriptor]
        return SAME if one == two else LESS if one < two else 2

    monkeypatch.setattr(openfiles, "compare", compare)
    process(node, 7, {"fd/3": "-> /dev/null", "fd/4": "-> /dev/null"})
    process(node, 8, {"fd/3": "-> /dev/null", "fd/5": "-> /dev/null"})
    process(node, 9, {"maps": MAPS, "map_files/400000-452000": f"-> {NULL}"})
    found = {holder.pid: holder for holder in holders.read(node, stack(nvidia=9))}
    assert {pid: holder.counted("nvidia") for pid, holder in found.items()} == {7: 3, 8: 3, 9: 3}
    (used,) = holders.in_use(stack(nvidia=10), found.values(), ())
    assert used.unseen == 1 and "pid 8 (sleep 1000)" in str(used)


def test_a_mapping_of_what_is_open_too_counts_nothing_and_is_told_where_references_are_left(node: Paths) -> None:
    process(node, 7, {"fd/3": "-> /dev/null", "maps": MAPS, "map_files/400000-452000": f"-> {NULL}"})
    found = holders.read(node, stack(nvidia=6))
    assert [(dict(holder.handles), holder.maps) for holder in found] == [({"nvidia": 3}, ("nvidia",))]
    (used,) = holders.in_use(stack(nvidia=6), found, (), "run the container with --pid=host")
    assert used.unseen == 3
    assert "3 reference(s) by mappings of these or by holders not visible from here (run" in str(used)


def test_what_our_own_daemon_maps_is_told_once_it_is_stopped(node: Paths) -> None:
    process(node, 7, {"fd/3": "-> /dev/null", "maps": MAPS, "map_files/400000-452000": f"-> {NULL}"})
    daemon = holders.read(node, stack(nvidia=9))
    assert holders.in_use(stack(nvidia=9), daemon, {daemon[0].identity}) == ()
    process(node, 8, {"fd/3": "-> /dev/null"})
    (used,) = holders.in_use(stack(nvidia=9), holders.read(node, stack(nvidia=9)), {daemon[0].identity})
    assert [holder.pid for holder in used.by] == [8] and used.mapped


@pytest.mark.allow_process("sleep")
def test_the_kernel_tells_a_shared_open_file_from_one_opened_again() -> None:
    def opened() -> int:
        return os.open("/dev/null", os.O_RDONLY)

    first, again = opened(), opened()
    second = os.dup(first)
    child = subprocess.Popen(["sleep", "60"], pass_fds=(first, again))
    try:
        seen = OpenFiles()
        told = [seen.is_new(1, Descriptor(os.getpid(), number)) for number in (first, again, second)]
        told += [seen.is_new(1, Descriptor(child.pid, number)) for number in (first, again)]
    finally:
        child.kill()
        child.wait()
        for number in (first, again, second):
            os.close(number)
    assert told == [True, True, False, False, False]
    assert openfiles.compare(os.getpid(), os.getpid(), 999_999, 0) < 0


def test_a_thread_with_a_file_table_of_its_own_is_found_as_its_process(node: Paths) -> None:
    process(node, 7, {"task/7/x": "", "task/17/x": ""})
    make_tree(node.root, {"proc/17/fd/3": "-> /dev/null"})
    assert Scanner(node, {}).threads(7) == [17]
    found = holders.read(node, stack(nvidia=3))
    assert [(holder.pid, dict(holder.handles)) for holder in found] == [(7, {"nvidia": 3})]


@pytest.mark.parametrize(("driver", "found"), [("nvidia", [7]), ("amdgpu", [])])
def test_a_card_is_ours_by_its_driver(node: Paths, driver: str, found: list[int]) -> None:
    (node.proc / "devices").write_text("Character devices:\n  1 drm\n195 nvidia\n")
    make_tree(node.root, {"sys/dev/char/1:3/device/driver": f"-> ../../bus/pci/drivers/{driver}"})
    process(node, 7, {"fd/3": "-> /dev/null"})
    assert pids(node, nvidia_drm=1) == found


def test_a_sentence_names_five_holders_and_describes_each_once() -> None:
    many = tuple(Holder(pid, "python\n\x1b train.py " + "x" * 99, 1.0, (("nvidia", 2),), pid) for pid in range(10, 18))
    used = (
        InUse("nvidia_uvm", 2, (), 0, many[:1], 0),
        InUse("nvidia", 21, ("nvidia_uvm", "nvidia_modeset"), 2, many, 1, "run the container with --pid=host"),
    )
    said = holders.describe(used)
    assert said.startswith("the driver is in use: nvidia_uvm has refcnt 2: pid 10 (python train.py xxx")
    assert "nvidia has refcnt 21 (2 by nvidia_uvm, nvidia_modeset, 2 by our own daemons): pid 10 (" in said
    assert said.count("pid 10") == 2 and said.count("pid 11") == 1 and said.count("1970-01-01") == LISTED
    assert said.endswith("3 more, 1 reference(s) by holders not visible from here (run the container with --pid=host)")
    assert len(said) < 1500 and said.isprintable()


@pytest.mark.parametrize(
    ("files", "cure"),
    [
        ({}, ""),
        ({"ns/pid": "-> pid:[4026531836]", "status": "CapEff:\t000001ffffffffff\n"}, ""),
        ({"ns/pid": "-> pid:[4026532999]"}, "--pid=host"),
        ({"ns/pid": "-> pid:[4026531836]", "status": "CapEff:\t00000000a80425fb\n"}, "--privileged"),
    ],
)
def test_why_somebody_may_not_be_visible_is_told(paths: Paths, files: dict[str, str], cure: str) -> None:
    make_tree(paths.root, {f"proc/self/{name}": text for name, text in files.items()})
    said = processes.blindness(paths)
    assert cure in said and bool(said) == bool(cure)


def test_a_process_asleep_in_the_kernel_is_not_asked_for_its_command_line(paths: Paths) -> None:
    make_tree(paths.root, {"proc/7/cmdline": "python\0train.py\0"})
    assert processes.read_words(paths, Process(7, "python", "D", 1)) == ["python"]
    assert processes.read_words(paths, Process(7, "python", "S", 1)) == ["python", "train.py"]


def test_one_that_ended_between_two_readings_is_looked_for_again(node: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = stack(nvidia=3)
    seen = iter([stack(nvidia=0)])
    monkeypatch.setattr("driverctr.facts.modules.read_stack", lambda paths: next(seen))
    assert holders.look(node, (), busy) == ()
    seen = iter([busy] * (holders.LOOKS - 1))
    assert [use.unseen for use in holders.look(node, (), busy)] == [3]


@pytest.mark.parametrize("kept", [None, Source.LOADED, Source.LAST_GOOD])
def test_a_start_takes_no_one_reading_of_one_that_has_ended_for_the_truth(
    node: Paths, kept: Source | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = [stack(nvidia=3), stack(nvidia=0)]
    supply = Supply(kept={kept: Loaded(GOOD.supply.builds[Source.ON_DISK])} if kept else {})
    monkeypatch.setattr("driverctr.facts.modules.read_stack", lambda paths: readings.pop(0))
    monkeypatch.setattr("driverctr.facts.kernel.read", lambda root: KERNEL)
    monkeypatch.setattr("driverctr.userspace.image.read", lambda root: GOOD.image)
    monkeypatch.setattr("driverctr.node.read", lambda *_: GOOD.node)
    monkeypatch.setattr(Search, "look", lambda self: supply)
    make_tree(node.root, {"proc/self/mountinfo": ""})
    seen = survey.survey(node, settings.load({}))
    assert (seen.stack["nvidia"].refcnt, len(seen.in_use)) == (0, 0)


def test_the_status_takes_a_reference_of_one_that_has_ended_for_no_use(
    node: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = [stack(nvidia=3), stack(nvidia=0)]
    monkeypatch.setattr("driverctr.facts.modules.read_stack", lambda paths: readings.pop(0))
    make_tree(node.root, {"proc/self/mountinfo": ""})
    told = statusview.collect(node, {})
    assert told["in_use"] == [] and told["modules"]["nvidia"]["refcnt"] == 0


@contextmanager
def sleepers(count: int) -> Iterator[list[int]]:
    """So many real processes, asleep, with /dev/null open; the first has a terminal's multiplexer open too."""
    terminal = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(count):
            kept = () if number else (terminal,)
            started.append(subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL, pass_fds=kept))
        os.close(terminal)
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


@pytest.mark.allow_process("sleep")
def test_among_a_thousand_processes_nobody_is_named_falsely_and_it_takes_half_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holders, "read_majors", lambda paths: {PTMX_MAJOR: "nvidia"})
    took = []
    with sleepers(1000) as asleep:
        for _ in range(3):
            began = time.process_time()
            found = holders.read(Paths(), stack(nvidia=10**6))
            took.append(time.process_time() - began)
            assert {holder.pid for holder in found} & set(asleep) == {asleep[0]}
        only = next(holder for holder in found if holder.pid == asleep[0])
    assert only.command == "sleep 300" and abs(only.started - time.time()) < 60
    assert min(took) < 0.5
