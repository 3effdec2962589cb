"""Before the next kernel boots: its modules are had once, at low priority, kept until it has run, and told of."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from driverctr import ahead, nextkernels, prebuild, statusverb, verbs
from driverctr import config as settings
from driverctr.errors import Code, DriverError
from driverctr.facts import kernel
from driverctr.kmod import Kmod
from driverctr.modules import ModuleSet, Wish, describe, pins, provenance
from driverctr.modules import key as keys
from driverctr.modules.drafts import Draft
from driverctr.modules.entry import Entry
from driverctr.modules.pins import Good
from driverctr.modules.store import Store
from driverctr.parser import make_parser
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.steps import Tools
from driverctr.syslog import Syslog
from driverctr.userspace.image import Image
from driverctr.versions import KernelRelease
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.module_files import write_module
from tests.unit.test_installed_kernels import LATER, NEXT, RUNNING, VERSION, headers_files, host, place_image

DRIVER = "535.309.01"
NEWEST = "6.12.1+deb13-amd64"
IMAGE = {
    "schema": 1,
    "driver_version": DRIVER,
    "distribution": "debian",
    "architecture": "amd64",
    "sources": [{"type": "proprietary", "version": DRIVER, "path": "/usr/src/nvidia", "sha256": "22" * 32}],
}


@dataclass
class Node:
    """A node whose builder makes small modules, and tells with what it was asked."""

    paths: Paths
    tools: Tools
    host: Path
    asked: list[tuple[Wish, int | None]] = field(default_factory=list)
    headers: Path | None = None
    headers_version: str = LATER
    expected: list[str] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None
    failure: DriverError | None = None

    @property
    def log(self) -> str:
        return str(self.tools.runner.log.stream.getvalue())  # type: ignore[attr-defined]  # a StringIO

    @property
    def store(self) -> Store:
        return Store.open(self.paths.root / "var/lib/driverctr/store", self.tools.runner.log)

    def builder(self, tools: Tools, image: Image, folder: Path) -> "FakeBuilder":
        return FakeBuilder(self, tools, folder)

    def update(self, release: str = NEXT) -> Path | None:
        return ahead.update(self.tools, release)

    def entry(self, release: str = NEXT) -> Entry:
        coming = nextkernels.foresee(self.paths, self.tools.config, KernelRelease(release))
        return self.store.find(coming.key)

    def rows(self, told: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        found = nextkernels.read(self.paths, self.tools.config, self.tools.runner.log, told or {})
        json.dumps(found)
        return {row["release"]: row for row in found}


@dataclass
class FakeBuilder:
    """Stands for `Built`."""

    node: Node
    tools: Tools
    folder: Path
    kernel_version: str = ""

    @contextmanager
    def draft(self, wish: Wish) -> Iterator[Draft]:
        self.node.asked.append((wish, self.tools.config.max_threads))
        self.node.expected.append(self.kernel_version)
        self.node.meanwhile()
        if self.node.failure:
            raise self.node.failure
        folder = self.node.paths.root / "made"
        file = write_module(folder / "nvidia.ko", wish.kernel_release)
        (folder / "build.log").write_text("make: done\n")
        found = ModuleSet(
            folder,
            wish.kernel_release,
            self.node.headers_version,
            wish.driver_version,
            wish.module_type,
            {"nvidia": describe(file)},
            compiler="gcc-12",
        )
        against = provenance.of_headers(self.node.headers) if self.node.headers else {}
        yield Draft(found, {"compiler": "gcc-12", **against}, folder / "build.log")


def mount_store(paths: Paths) -> None:
    """A folder of the host where the store lies."""
    line = f"2 1 0:2 / {paths.root}/var/lib/driverctr rw - ext4 /dev/sda rw\n"
    make_tree(paths.root, {"proc/self/mountinfo": f"1 0 0:1 / / rw - overlay overlay rw\n{line}"})


@pytest.fixture
def node(paths: Paths, runner: Runner, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    make_tree(
        paths.root,
        {
            "usr/share/driverctr/image.json": json.dumps(IMAGE),
            "var/lib/driverctr": None,
            "sys/bus/pci/devices": None,
            "proc/self/oom_score_adj": "0",
            "modules": None,
        },
    )
    found = host(paths.root, RUNNING, NEXT)
    place_image(found, NEXT, LATER)
    mount_store(paths)
    fake_bin.add("ionice")
    config = settings.load({"MODULES_DIR": str(paths.root / "modules")})
    signals = Signals()
    tools = Tools(paths, config, runner, Kmod(), signals, Syslog(paths.root / "log", paths.own_run), Budget(signals, 5))
    made = Node(paths, tools, found)
    monkeypatch.setattr(ahead, "builder", made.builder)
    monkeypatch.setattr(ahead, "become_subreaper", lambda: None)
    monkeypatch.setattr(os, "nice", lambda more: 0)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", RUNNING, VERSION, "x86_64")))
    monkeypatch.setattr(Signals, "install", lambda self: None)
    yield made


def test_the_modules_of_a_kernel_to_come_are_built_once_and_pinned_until_it_has_run(node: Node) -> None:
    folder = node.update()
    entry = node.entry()
    assert folder == entry.folder and [wish for wish, _ in node.asked] == [Wish(NEXT, DRIVER, "proprietary")]
    assert entry.key.kernel_version == LATER and entry.key.kernel_build_id == ""
    assert entry.provenance["compiler"] == "gcc-12" and (entry.folder / "build.log").is_file()
    assert pins.read(node.store.folder).next == {NEXT: entry.key.digest}
    assert node.update() == folder and len(node.asked) == 1
    pins.record_good(node.store.folder, Good(entry.key))
    assert pins.read(node.store.folder).next == {}


def test_a_boot_of_that_kernel_finds_what_was_built_before_it_ran(node: Node) -> None:
    node.update()
    before = node.entry().key
    running = replace(kernel.read(node.paths.root, NEXT), build_id="ab" * 20, running=True)
    coming = nextkernels.foresee(node.paths, node.tools.config, KernelRelease(NEXT))
    booted = keys.make(coming.wish, coming.image, running)
    assert node.store.find(booted).key == before


def test_damaged_modules_are_not_ready_ones(node: Node) -> None:
    node.update()
    file = node.entry().folder / "nvidia.ko"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    node.update()
    assert len(node.asked) == 2 and "set aside" in node.log
    node.entry()


def test_modules_built_against_headers_that_were_replaced_are_built_anew(node: Node) -> None:
    make_tree(node.host, {**headers_files(NEXT, LATER), f"usr/src/linux-headers-{NEXT}/Module.symvers": "0x1 a\n"})
    symbols = node.host / f"usr/src/linux-headers-{NEXT}/Module.symvers"
    node.headers = node.host / f"usr/src/linux-headers-{NEXT}"
    node.update()
    assert node.rows()[NEXT]["ready"] and node.update() and len(node.asked) == 1
    symbols.write_text("0x2 a\n")
    row = node.rows()[NEXT]
    assert not row["ready"] and "differs in symvers_sha256" in row["reason"]
    node.update()
    assert len(node.asked) == 2 and node.rows()[NEXT]["ready"] and "differs in symvers_sha256" in node.log


def test_the_newest_kernel_that_has_not_run_is_the_latest(node: Node) -> None:
    make_tree(node.host, {f"lib/modules/{NEWEST}/modules.builtin": ""})
    place_image(node.host, NEWEST, LATER)
    node.update("latest")
    assert [wish.kernel_release for wish, _ in node.asked] == [NEWEST]


def test_where_no_kernel_is_to_come_nothing_is_done(node: Node) -> None:
    (node.host / f"lib/modules/{NEXT}/modules.builtin").unlink()
    assert node.update("latest") is None
    assert node.asked == [] and "nothing to do" in node.log


def test_the_running_kernels_modules_need_no_pin_of_one_to_come(node: Node) -> None:
    node.headers_version = VERSION
    node.update(RUNNING)
    assert node.entry(RUNNING).key.kernel_version == VERSION
    assert pins.read(node.store.folder).next == {}


def test_another_build_of_the_running_kernel_is_one_to_come(node: Node) -> None:
    place_image(node.host, RUNNING, LATER)
    assert node.update("latest") == node.update(NEXT)
    node.update(RUNNING)
    assert set(pins.read(node.store.folder).next) == {NEXT, RUNNING}
    rows = node.rows()
    assert rows[RUNNING]["rebuilt"] and rows[RUNNING]["ready"]
    assert "another build of it is installed" in nextkernels.format_row(rows[RUNNING])


def test_headers_about_to_be_replaced_are_not_built_with(node: Node) -> None:
    make_tree(node.host, headers_files(NEXT, VERSION))
    with pytest.raises(DriverError, match=r"are of the build .*192-2.*, the kernel installed is .*200-1") as refused:
        node.update()
    assert refused.value.code is Code.HEADERS_MISSING and node.asked == []


def test_the_builder_is_told_which_build_of_the_kernel_is_meant(node: Node) -> None:
    node.headers_version = ""
    node.update()
    assert node.expected == [LATER] and "built with headers of an unknown build, for the kernel #1 SMP" in node.log
    assert node.entry().key.kernel_version == LATER


def test_where_only_its_headers_tell_a_kernels_version_the_build_is_found_by_it(node: Node) -> None:
    (node.host / f"boot/vmlinuz-{NEXT}").unlink()
    folder = node.update()
    (found,) = node.store.entries()
    assert found.key.kernel_version == LATER and node.update() == folder and len(node.asked) == 1
    assert node.rows()[NEXT]["ready"]


def test_a_kernel_nobody_knows_the_version_of_is_built_for_and_the_doubt_is_told(node: Node) -> None:
    (node.host / f"boot/vmlinuz-{NEXT}").unlink()
    node.headers_version = ""
    node.update()
    assert "its boot may not take these modules" in node.log


def test_modules_of_a_kernel_that_was_removed_are_kept_no_more(node: Node) -> None:
    make_tree(node.host, {f"lib/modules/{NEWEST}/modules.builtin": ""})
    place_image(node.host, NEWEST, LATER)
    node.update(NEWEST)
    (node.host / f"lib/modules/{NEWEST}/modules.builtin").unlink()
    node.update()
    assert set(pins.read(node.store.folder).next) == {NEXT}
    assert f"kernel {NEWEST} is on the host no more" in node.log


def test_it_gives_way_to_everybody_else(node: Node, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(os, "nice", told.append)
    monkeypatch.setattr(os, "sched_setscheduler", lambda pid, policy, param: told.append(policy))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    node.update()
    assert told == [19, os.SCHED_BATCH]
    assert fake_bin.calls == [f"ionice --class idle --pid {os.getpid()}"]
    assert (node.paths.proc / "self/oom_score_adj").read_text() == "1000"
    assert node.asked[0][1] == 32


def test_the_users_number_of_jobs_holds_and_missing_ways_to_give_way_do_no_harm(node: Node, fake_bin: FakeBin) -> None:
    (fake_bin.folder / "ionice").unlink()
    (node.paths.proc / "self/oom_score_adj").unlink()
    node.tools = replace(node.tools, config=replace(node.tools.config, max_threads=3))
    node.update()
    assert node.asked[0][1] == 3


def test_the_status_tells_of_each_kernel_whether_its_boot_is_ready_and_why_not(node: Node) -> None:
    make_tree(node.host, {f"lib/modules/{NEWEST}/modules.builtin": "", "lib/modules/6.1.0-9-amd64/modules.builtin": ""})
    node.update()
    rows = node.rows({NEWEST: {"state": "building"}, "6.1.0-9-amd64": {"state": "failed", "reason": "no headers"}})
    assert list(rows) == [NEWEST, NEXT, RUNNING, "6.1.0-9-amd64"]
    assert [row["running"] for row in rows.values()] == [False, False, True, False]
    lines = [nextkernels.format_row(row) for row in rows.values()]
    assert lines[0] == f"{NEWEST}: not ready, they are being built now"
    digest = node.entry().key.digest
    assert lines[1] == f"{NEXT}: ready for its next boot, store: {digest[:12]} (proprietary {DRIVER} for {NEXT})"
    assert lines[2].startswith(f"{RUNNING} (running): not ready, the store ") and "differs in kernel" in lines[2]
    assert lines[3] == "6.1.0-9-amd64: not ready, the last build failed: no headers"
    assert rows[NEXT]["version"] == LATER


def test_a_build_that_somebody_else_began_is_told_too(node: Node) -> None:
    coming = nextkernels.foresee(node.paths, node.tools.config, KernelRelease(NEXT))
    lock = node.store.folder / "locks" / coming.key.digest
    make_tree(lock.parent, {lock.name: "pid 17"})
    found = lock.stat()
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    (node.paths.proc / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 17 {file} 0 EOF\n")
    assert node.rows()[NEXT]["reason"] == "they are being built now"
    assert "differs" in node.rows()[RUNNING]["reason"] or "empty" in node.rows()[RUNNING]["reason"]


def test_a_status_without_an_image_or_a_store_says_why(node: Node) -> None:
    (node.paths.root / "var/lib/driverctr").rmdir()
    assert "there is no store" in node.rows()[NEXT]["reason"]
    (node.paths.root / "usr/share/driverctr/image.json").unlink()
    assert "image.json" in node.rows()[NEXT]["reason"]


def test_the_verbs_print_it(node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "own_environment", lambda: {"LOG_LEVEL": "error"})
    parser = make_parser()
    assert verbs.update(node.tools, parser.parse_args(["update", "-k", NEXT, "-t", "x"])) == 0
    assert capsys.readouterr().out == f"{node.entry().folder}\n"
    statusverb.show(node.tools, parser.parse_args(["status", "--json"]))
    assert [row["ready"] for row in json.loads(capsys.readouterr().out)["kernels"]] == [True, False]
    statusverb.show(node.tools, parser.parse_args(["status"]))
    assert f"\nkernel:       {NEXT}: ready for its next boot" in capsys.readouterr().out
    with pytest.raises(DriverError, match="modules are not signed here yet"):
        verbs.update(node.tools, parser.parse_args(["update", "--kernel", NEXT, "--sign", "key"]))


def test_the_lookout_serves_where_it_is_wanted_and_what_it_makes_lasts(node: Node) -> None:
    def store(tools: Tools) -> Path | None:
        with prebuild.serving(tools, lambda **changes: None) as made:
            return made.store

    assert store(node.tools) == node.store.folder
    assert store(replace(node.tools, config=replace(node.tools.config, prebuild=False))) is None
    (node.paths.root / "var/lib/driverctr").rmdir()
    assert store(node.tools) is None
    assert "no modules are built for kernels that come next: there is no store" in node.log


@pytest.mark.parametrize("on_host", [True, False])
def test_of_a_store_in_the_containers_own_layer_no_more_is_promised_than_it_holds(node: Node, on_host: bool) -> None:
    make_tree(node.paths.root, {"proc/self/mountinfo": "1 0 0:1 / / rw - overlay overlay rw\n"})
    node.tools = replace(node.tools, config=replace(node.tools.config, store_on_host=on_host))
    node.update()
    with prebuild.serving(node.tools, lambda **changes: None) as made:
        assert made.store is not None
    goes = "which goes with this container"
    row = nextkernels.format_row(node.rows()[NEXT])
    assert row.endswith(f", {goes}") is not on_host and "ready for its next boot, store: " in row
    assert (f"{goes}\n" in node.log, f"{goes}, as do modules built there" in node.log) == (not on_host, not on_host)


def test_the_settings_given_are_handed_on_whole_and_the_others_are_not() -> None:
    config = settings.load({"STORE_DIR": "/s", "KERNEL_MODULE_TYPE": "", "OTHER": "x"}, {"MAX_THREADS": "3"})
    assert config.given == {"STORE_DIR": "/s", "MAX_THREADS": "3"}
