"""Facts of the kernel, the host's root, our limits and the compilers, from trees of our own."""

import struct
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.facts import compiler, hostroot, kernel, limits
from driverctr.run import Runner
from tests.unit.conftest import FakeBin, make_tree

RELEASE = "6.1.0-56-amd64"
GCC_12 = "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"
NOTE = (
    struct.pack("=III", 6, 4, 1)
    + b"Linux\0\0\0"
    + b"abcd"
    + struct.pack("=III", 4, 20, 3)
    + b"GNU\0"
    + bytes(range(20))
)


def running_kernel(root: Path) -> None:
    make_tree(
        root,
        {
            "proc/sys/kernel/osrelease": f"{RELEASE}\n",
            "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)\n",
            "proc/version": f"Linux version {RELEASE} (a@b) ({GCC_12}, GNU ld (GNU Binutils) 2.40) #1 SMP\n",
        },
    )
    (root / "sys/kernel").mkdir(parents=True)
    (root / "sys/kernel/notes").write_bytes(NOTE)


def test_the_running_kernel(tmp_path: Path) -> None:
    running_kernel(tmp_path)
    builtin = "kernel/drivers/char/tpm/tpm-tis.ko\nkernel/fs/ext4/ext4.ko\n"
    make_tree(tmp_path, {f"lib/modules/{RELEASE}/modules.builtin": builtin})
    found = kernel.read(tmp_path)
    assert found.release == RELEASE
    assert found.version == "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"
    assert found.build_id == bytes(range(20)).hex()
    assert found.cc_version_text == GCC_12
    assert found.builtin == {"tpm_tis", "ext4"}
    assert found.running


def test_another_kernel_has_no_version_of_the_running_one(tmp_path: Path) -> None:
    running_kernel(tmp_path)
    make_tree(tmp_path, {"boot/config-6.12.1": 'CONFIG_X=y\nCONFIG_CC_VERSION_TEXT="gcc-13 (Debian) 13.1.0"\n'})
    found = kernel.read(tmp_path, "6.12.1")
    assert (found.version, found.build_id, found.running) == ("", "", False)
    assert found.cc_version_text == "gcc-13 (Debian) 13.1.0"
    assert kernel.read(tmp_path, "6.12.2").cc_version_text == ""


def test_headers_tell_the_compiler_through_an_absolute_link(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        {
            "usr/lib/modules/R/build": "-> /usr/src/h",
            "lib": "-> usr/lib",
            "usr/src/h/include/config/auto.conf": 'CONFIG_CC_VERSION_TEXT="gcc-12 x"\n',
        },
    )
    assert kernel.read(tmp_path, "R").cc_version_text == "gcc-12 x"


def test_links_are_followed_inside_the_root(tmp_path: Path) -> None:
    make_tree(
        tmp_path, {"usr/src/real/file": "x", "a": "-> /usr/src/link", "usr/src/link": "-> ../../../../../usr/src/real"}
    )
    assert hostroot.resolve(tmp_path, Path("/a/file")) == tmp_path / "usr/src/real/file"


def test_a_circle_of_links_is_told(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": "-> /b", "b": "-> a"})
    with pytest.raises(DriverError, match="too many links"):
        hostroot.resolve(tmp_path, Path("/a"))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="none: No such file"):
        hostroot.resolve(tmp_path, Path("/none/at/all"))


@pytest.mark.parametrize(
    ("ours", "modules", "trusted"), [("mnt:[2]", True, True), ("mnt:[1]", True, False), ("mnt:[2]", False, False)]
)
def test_the_root_of_process_1_is_trusted_in_a_foreign_namespace_with_modules(
    tmp_path: Path, ours: str, modules: bool, trusted: bool
) -> None:
    make_tree(tmp_path, {"proc/1/ns/mnt": "-> mnt:[1]", "proc/self/ns/mnt": f"-> {ours}", "proc/1/root/etc/x": ""})
    if modules:
        make_tree(tmp_path, {"proc/1/root/lib/modules/R/x": ""})
    reaches = [place.reach for place in hostroot.host_roots(tmp_path)]
    assert (hostroot.Reach.PROCESS in reaches) == trusted
    assert reaches[-1] is hostroot.Reach.OWN


def meminfo(kilobytes: int) -> dict[str, str | None]:
    return {"proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable:   {kilobytes} kB\n"}


def test_jobs_are_bounded_by_the_quota_above_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    make_tree(tmp_path, meminfo(64 << 20))
    make_tree(tmp_path, {"proc/self/cgroup": "0::/pod/container\n", "sys/fs/cgroup/pod/cpu.max": "250000 100000\n"})
    assert limits.read(tmp_path).jobs() == 3
    assert limits.read(tmp_path).jobs(at_most=2) == 2
    assert limits.read(tmp_path).jobs(at_most=99) == 3


def test_jobs_are_bounded_by_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    make_tree(tmp_path, meminfo(64 << 20))
    group = {
        "memory.max": f"{3 << 30}",
        "memory.current": f"{2 << 30}",
        "memory.stat": f"anon 1\ninactive_file {1 << 30}\n",
    }
    make_tree(
        tmp_path, {"proc/self/cgroup": "0::/\n", **{f"sys/fs/cgroup/{name}": text for name, text in group.items()}}
    )
    assert limits.read(tmp_path).memory == 2 << 30
    assert limits.read(tmp_path).jobs() == 4


def test_version_1_limits_and_no_limit_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    make_tree(tmp_path, meminfo(1 << 20))
    assert limits.read(tmp_path).jobs() == 2
    make_tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/c\n3:memory:/c\n",
            "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/c/memory.limit_in_bytes": "1000",
            "sys/fs/cgroup/memory/c/memory.usage_in_bytes": "900",
        },
    )
    found = limits.read(tmp_path)
    assert (found.cpus, found.memory, found.jobs()) == (1, 100, 1)


@pytest.mark.parametrize(
    ("text", "family", "major"),
    [
        (GCC_12, "gcc", 12),
        ("x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc", 12),
        ("gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0", "gcc", 11),
        ("gcc (GCC) 8.5.0 20210514 (Red Hat 8.5.0-20)", "gcc", 8),
        ("Debian clang version 16.0.6 (15~deb12u1)", "clang", 16),
        ("", "gcc", None),
    ],
)
def test_what_a_kernel_says_of_its_compiler(text: str, family: str, major: int | None) -> None:
    assert (compiler.family(text), compiler.major_of(text)) == (family, major)


def add_compilers(fake_bin: FakeBin) -> None:
    for name, version in (("gcc", "13"), ("gcc-12", "12"), ("gcc-13", "13.2.0"), ("gcc-ar-12", "12")):
        fake_bin.add(name, f"echo {version}")


def test_the_compiler_the_kernel_names_is_chosen(fake_bin: FakeBin, runner: Runner) -> None:
    add_compilers(fake_bin)
    assert compiler.choose(GCC_12, runner) == compiler.Compiler("gcc-12", 12)
    assert compiler.choose("gcc-13 (Debian) 13.1.0", runner).command == "gcc-13"
    assert compiler.choose("gcc (GCC) 13.1.0", runner).command == "gcc"
    assert compiler.choose("", runner).command == "gcc"


def test_a_compiler_of_a_toolset_is_found_where_red_hat_puts_it(
    fake_bin: FakeBin, runner: Runner, tmp_path: Path
) -> None:
    fake_bin.add("gcc", "echo 8")
    toolset = FakeBin(tmp_path / "root/opt/rh/gcc-toolset-13/root/usr/bin").add("gcc", "echo 13")
    text = "gcc (GCC) 13.3.1 20240611 (Red Hat 13.3.1-2)"
    assert compiler.choose(text, runner, "", tmp_path / "root") == compiler.Compiler(str(toolset), 13)
    assert compiler.choose("gcc (GCC) 8.5.0", runner, "", tmp_path / "root").command == "gcc"
    with pytest.raises(DriverError, match="asks for gcc-13; here is gcc"):
        compiler.choose(text, runner, "", tmp_path)


def test_a_missing_compiler_names_wanted_found_and_fix(fake_bin: FakeBin, runner: Runner) -> None:
    add_compilers(fake_bin)
    with pytest.raises(DriverError) as raised:
        compiler.choose("gcc-11 (Debian) 11.2.0", runner, "gcc-11")
    assert raised.value.code is Code.COMPILER_MISSING
    assert "asks for gcc-11; here is gcc (13), gcc-12 (12), gcc-13 (13)" in raised.value.message
    assert "Put gcc-11 into the image" in raised.value.remedy
