"""The provider that builds: once for each key, into the store where there is one that can be used."""

import errno
import fcntl
import re
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from driverctr import distros
from driverctr.errors import Code, DriverError
from driverctr.facts.kernel import KernelFacts, version_of_tree
from driverctr.facts.osrelease import OsRelease
from driverctr.hashing import sha256
from driverctr.headers import Origin
from driverctr.log import Log
from driverctr.modules import ModuleSet, Wish, provenance
from driverctr.modules.built import Built
from driverctr.modules.drafts import keep
from driverctr.modules.key import Key
from driverctr.modules.ondisk import OnDisk
from driverctr.modules.store import Store, check
from driverctr.run import Runner
from driverctr.userspace.image import Image, ModuleType, Source
from driverctr.versions import DriverVersion
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.module_files import write_module
from tests.unit.stored import said
from tests.unit.stored import store as store
from tests.unit.test_headers import CONFIG, FLAVOUR, RELEASE, split_tree
from tests.unit.test_store_crash import forked, raising, status_of

VERSION = DriverVersion("535.309.01")
WISH = Wish(RELEASE, VERSION.text, "proprietary")
KEY = Key(WISH.driver_version, WISH.module_type, "11" * 32, "x86_64", RELEASE, "#1 SMP Debian 6.1.192-2", "ab" * 20)
NAMES = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-peermem")


@pytest.fixture
def built(tmp_path: Path, fake_bin: FakeBin, runner: Runner, log: Log) -> Built:
    """A builder whose compiler and make are fake; the time a make takes is in the file `takes`."""
    node = tmp_path / "node"
    split_tree(node)
    make_tree(node, {"usr/src/nvidia/Makefile": "modules:\n", "usr/share/driverctr/image.json": "{}"})
    for name in NAMES:
        write_module(tmp_path / f"made/{name}.ko", RELEASE)
    (tmp_path / "takes").write_text("0")
    fake_bin.add("gcc-12", 'case "$1" in -dumpversion) echo 12;; *) echo "gcc-12 (Debian) 12.2.0"; echo more;; esac')
    fake_bin.add("cp", '/bin/cp "$@"')
    fake_bin.add("strip")
    fake_bin.add(
        "make", f'/bin/sleep "$(/bin/cat {tmp_path}/takes)"; /bin/cp {tmp_path}/made/*.ko .; echo "  CC [M]  x.o"'
    )
    source = Source(ModuleType.PROPRIETARY, VERSION, node / "usr/src/nvidia", "22" * 32)
    described = Image(VERSION, (source,), "debian", "amd64")
    distro = distros.of(OsRelease("debian", "12"))
    (tmp_path / "scratch").mkdir()
    return Built(described, distro, runner, log, None, tmp_path / "modules", tmp_path / "scratch", node)


def compiled(fake_bin: FakeBin) -> int:
    """How often make ran."""
    return sum(call.startswith("make ") for call in fake_bin.calls)


def build_once(built: Built, store: Store | None) -> ModuleSet:
    """As a start has modules built."""
    return keep(lambda: built.draft(WISH), KEY, store, built.folder, wait, built.log).module_set


def wait(seconds: float) -> None:
    time.sleep(0.01)


def test_a_build_lies_on_disk_in_the_layout_that_is_found_there(built: Built) -> None:
    found = built.find(WISH)
    assert OnDisk(built.folder).find(WISH) == found and (found.folder / "build.log").is_file()
    assert not list(built.scratch.iterdir())


def test_a_build_goes_into_the_store_with_what_it_was_made_with(built: Built, store: Store) -> None:
    found = build_once(built, store)
    entry = check(store.find(KEY).folder)
    assert entry.module_set == found and "CC [M]" in (entry.folder / "build.log").read_text()
    headers = built.root / FLAVOUR
    expected = {
        "compiler": "gcc-12 (Debian) 12.2.0",
        "kernel_compiler": CONFIG.split('"')[1],
        "config_sha256": sha256(headers / "include/config/auto.conf"),
        "symvers_sha256": sha256(headers / "Module.symvers"),
        "image_sha256": sha256(built.root / "usr/share/driverctr/image.json"),
        "patches": "",
    }
    assert {name: entry.provenance[name] for name in expected} == expected
    assert not list(built.scratch.iterdir()) and not built.folder.exists()


def test_the_headers_a_build_was_made_with_put_it_in_no_doubt_and_others_do(built: Built, store: Store) -> None:
    build_once(built, store)
    running = KernelFacts(RELEASE, KEY.kernel_version, "x86_64", "", "", frozenset(), running=True)
    judge = partial(provenance.judge, store, store.find(KEY), running, built.root)
    assert judge() is None
    (built.root / FLAVOUR / "Module.symvers").write_text("0x1 a\n")
    assert judge()


def test_headers_of_another_build_of_the_kernel_are_refused_before_anything_is_made(
    built: Built, fake_bin: FakeBin
) -> None:
    known = version_of_tree(built.root / FLAVOUR)
    assert replace(built, kernel_version=known).find(WISH).kernel_version == known != ""
    before = compiled(fake_bin)
    with pytest.raises(DriverError, match=r"are of the build #1 .*, the kernel meant is #2") as refused:
        replace(built, kernel_version="#2").find(WISH)
    assert refused.value.code is Code.HEADERS_MISSING and compiled(fake_bin) == before
    (built.root / FLAVOUR / "include/generated/utsversion.h").unlink(missing_ok=True)
    (built.root / FLAVOUR / "include/generated/compile.h").unlink(missing_ok=True)
    assert replace(built, kernel_version="#2").find(WISH)


RHELS = "#1 SMP PREEMPT_DYNAMIC Wed Apr 10 10:29:16 EDT 2024"
ROCKYS = "#1 SMP PREEMPT_DYNAMIC Wed May 1 19:11:28 UTC 2024"
"""Both of 5.14.0-427.13.1.el9_4.x86_64."""


@pytest.mark.parametrize(
    ("theirs", "running", "words"),
    [
        (RHELS, ROCKYS, rf"the build {RHELS}, the kernel meant is {ROCKYS}"),
        (
            "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)",
            "#1 SMP PREEMPT_DYNAMIC Debian 6.1.69-1 (2023-12-30)",
            r"package version 6\.1\.76-1, not 6\.1\.69-1",
        ),
    ],
)
def test_packaged_headers_of_another_build_than_runs_serve_only_where_the_kernel_compares_symbols(
    built: Built, fake_bin: FakeBin, log: Log, monkeypatch: pytest.MonkeyPatch, theirs: str, running: str, words: str
) -> None:
    make_tree(built.root, {"proc/sys/kernel/osrelease": RELEASE, "proc/sys/kernel/version": running})
    (built.root / FLAVOUR / "include/generated/utsversion.h").write_text(f'#define UTS_VERSION "{theirs}"\n')
    accept, origin = Built._check_version, Origin.PACKAGES
    monkeypatch.setattr(Built, "_check_version", lambda self, found: accept(self, replace(found, origin=origin)))
    with pytest.raises(DriverError, match=words) as refused:
        built.find(WISH)
    assert refused.value.code is Code.HEADERS_MISSING
    assert not compiled(fake_bin)
    auto_conf = built.root / FLAVOUR / "include/config/auto.conf"
    auto_conf.write_text(f"{CONFIG}CONFIG_MODVERSIONS=y\n")
    assert built.find(WISH) and re.search(f"(?s){words}.*all the same", said(log))
    auto_conf.write_text(CONFIG)
    origin = Origin.HOST
    assert built.find(WISH)


def test_the_second_builder_of_a_key_compiles_nothing(
    built: Built, store: Store, fake_bin: FakeBin, log: Log, tmp_path: Path
) -> None:
    (tmp_path / "takes").write_text("0.5")
    pid = forked(lambda: build_once(built, store))
    while not compiled(fake_bin):
        time.sleep(0.01)
    before = len(fake_bin.calls)
    found = build_once(built, store)
    assert status_of(pid) == 0 and compiled(fake_bin) == 1
    assert not [call for call in fake_bin.calls[before:] if not call.startswith(("strip", "gcc-12 --version"))]
    assert found == store.find(KEY).module_set and "waiting for it" in said(log)


def test_many_builders_at_once_compile_once(built: Built, store: Store, fake_bin: FakeBin, tmp_path: Path) -> None:
    (tmp_path / "takes").write_text("0.2")
    pids = [forked(lambda: build_once(built, store)) for _ in range(6)]
    assert [status_of(pid) for pid in pids] == [0] * 6 and compiled(fake_bin) == 1


def test_a_damaged_entry_is_built_anew(built: Built, store: Store, fake_bin: FakeBin) -> None:
    file = build_once(built, store).modules["nvidia"].file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    build_once(built, store)
    assert compiled(fake_bin) == 2 and check(store.find(KEY).folder)


def test_a_build_that_fails_leaves_its_log_and_the_next_may_try(built: Built, store: Store, fake_bin: FakeBin) -> None:
    make = (fake_bin.folder / "make").read_text()
    fake_bin.add("make", "echo '/x/nv.c:1:1: error: no'; exit 2")
    with pytest.raises(DriverError) as failed:
        build_once(built, store)
    assert failed.value.code is Code.BUILD_FAILED and [path.suffix for path in built.scratch.iterdir()] == [".log"]
    assert store.look() == () and not list((store.folder / "locks").iterdir())
    (fake_bin.folder / "make").write_text(make)
    assert build_once(built, store)


def test_a_store_that_cannot_be_locked_is_no_reason_not_to_build(
    built: Built, store: Store, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_store(descriptor: int, *words: object) -> bool:
        return str(store.folder) in str(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(fcntl, "flock", raising(errno.ENOLCK, when=in_store, instead=fcntl.flock))
    assert build_once(built, store).folder.is_relative_to(built.folder)
    assert f"the filesystem of {store.folder / 'locks'} has no locks" in said(log)


def test_a_store_that_is_full_is_no_reason_to_lose_what_was_built(
    built: Built, store: Store, log: Log, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def into(source: Path, target: Path) -> bool:
        return Path(target).is_relative_to(store.folder)

    monkeypatch.setattr(shutil, "copyfile", raising(errno.ENOSPC, when=into, instead=shutil.copyfile))
    found = build_once(built, store)
    assert OnDisk(built.folder).find(WISH) == found and compiled(fake_bin) == 1
    assert "not kept in it" in said(log) and "No space left on device" in said(log)
