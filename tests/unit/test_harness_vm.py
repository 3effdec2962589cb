"""The pure parts of the proving ground: verdicts, kernels by name, package sources, archives, the repeat command."""

import lzma
import shlex
import struct
from pathlib import Path

import pytest

from harness import apt, foreign, kernels, proc, qemu, vm
from harness.cli import main
from harness.errors import HarnessError
from harness.vm import Outcome, Share, VmSpec

RELEASES = ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.95+deb12-amd64", "6.12.117+deb12-amd64"]


@pytest.mark.parametrize(
    ("code", "status", "console", "expected"),
    [
        (1, "0\n", "", (Outcome.PASSED, 0)),
        (15, "7\n", "", (Outcome.FAILED, 7)),
        (511 & 0xFF, "255\n", "", (Outcome.FAILED, 255)),
        (0, "0\n", "", (Outcome.NO_STATUS, None)),
        (1, "", "", (Outcome.NO_STATUS, None)),
        (1, "7\n", "", (Outcome.NO_STATUS, None)),
        (1, "-1\n", "", (Outcome.NO_STATUS, None)),
        (None, "", "", (Outcome.HUNG, None)),
        (None, "0\n", "", (Outcome.HUNG, None)),
        (1, "0\n", "Kernel panic - not syncing: Fatal exception", (Outcome.PANICKED, None)),
    ],
)
def test_only_agreeing_status_and_bell_count(
    code: int | None, status: str, console: str, expected: tuple[Outcome, int | None]
) -> None:
    assert vm.judge(code, status, console) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("6.1", "6.1.0-56-amd64"),
        ("6.12", "6.12.117+deb12-amd64"),
        ("6.1.0-9", "6.1.0-9-amd64"),
        ("6.12.95+deb12-amd64", "6.12.95+deb12-amd64"),
        ("6", "6.12.117+deb12-amd64"),
        ("6.1.0-5", None),
        ("5.10", None),
    ],
)
def test_a_kernel_is_named_by_its_beginning(wanted: str, expected: str | None) -> None:
    assert sorted(set(RELEASES), key=kernels.order) == RELEASES
    assert kernels.newest(wanted, RELEASES) == expected


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("linux-image-6.1.0-56-amd64", "6.1.0-56-amd64"),
        ("linux-image-6.12.117+deb12-amd64", "6.12.117+deb12-amd64"),
        ("linux-image-6.1.0-56-rt-amd64", None),
        ("linux-image-6.1.0-56-cloud-amd64", None),
        ("linux-image-6.1.0-56-amd64-unsigned", None),
        ("linux-image-amd64", None),
        ("linux-image-6.12-amd64", None),
    ],
)
def test_release_of_a_package(package: str, expected: str | None) -> None:
    assert kernels.release_of(package) == expected


def _bzimage(payload: bytes) -> bytes:
    header = bytearray(2 * 512 + 16)
    header[0x1F1] = 1
    struct.pack_into("<II", header, 0x248, 16, len(payload))
    return bytes(header) + payload + b"trailer"


def test_vmlinux_comes_out_of_an_xz_payload() -> None:
    elf = b"\x7fELF" + bytes(1000)
    assert kernels.extract_vmlinux(_bzimage(lzma.compress(elf) + b"\0\0\0\0")) == elf


def test_an_unknown_payload_is_refused() -> None:
    with pytest.raises(HarnessError, match="1f8b08"):
        kernels.extract_vmlinux(_bzimage(b"\x1f\x8b\x08" + bytes(20)))


def _machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"etc/os-release": 'ID=debian\nVERSION_CODENAME="bookworm"\n', **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


DEB822 = """Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /keys/debian.gpg

Types: deb deb-src
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://other.example/
Suites: stable
Components: x
"""


EVERY = "main contrib non-free non-free-firmware"


def test_sources_are_the_machines_own_with_all_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(apt.SOURCES_VARIABLE, raising=False)
    root = _machine(
        tmp_path,
        {
            "etc/apt/sources.list": "# deb http://no.example x y\ndeb http://s.example/s bookworm-security main # c\n",
            "etc/apt/sources.list.d/debian.sources": DEB822,
        },
    )
    found = apt.configured(root)
    monkeypatch.setattr(apt, "configured", lambda: found)
    signed = "deb [signed-by=/keys/debian.gpg] http://mirror.example/debian"
    assert apt.sources(["backports"]).splitlines() == [
        f"deb http://s.example/s bookworm-security {EVERY}",
        f"{signed} bookworm {EVERY}",
        f"{signed} bookworm-updates {EVERY}",
        f"{signed} bookworm-backports {EVERY}",
    ]


def test_on_another_distribution_they_are_those_of_dockers_debian_with_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(apt.SOURCES_VARIABLE, raising=False)
    ubuntu = _machine(tmp_path / "ubuntu", {"etc/apt/sources.list": "deb http://u.example/ noble main universe\n"})
    debian = _machine(tmp_path / "debian", {"etc/apt/sources.list.d/debian.sources": DEB822})
    configured = apt.configured
    assert configured(ubuntu) == []
    monkeypatch.setattr(apt, "configured", lambda root=ubuntu: configured(root))
    monkeypatch.setattr(foreign, "root", lambda: debian)
    assert apt.sources().splitlines() == [
        f"deb [signed-by={debian}/keys/debian.gpg] http://mirror.example/debian {suite} {EVERY}"
        for suite in ("bookworm", "bookworm-updates")
    ]


def test_a_chosen_file_without_debian_12_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_text("deb http://u.example/ noble main\n")
    monkeypatch.setenv(apt.SOURCES_VARIABLE, str(tmp_path / "list"))
    with pytest.raises(HarnessError, match=apt.SOURCES_VARIABLE):
        apt.sources()


def test_repeat_command_is_understood_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = VmSpec(
        kernel="6.12",
        gpu=None,
        headers=False,
        shares={"out": Share(tmp_path, writable=True), "in": tmp_path},
        images={"driver": tmp_path},
        scratch=["/var/lib/docker"],
        kept={"/var/lib/driverctr": tmp_path / "a disk"},
        append="a=1 b",
        timeout=90,
    )
    script = tmp_path / "a script"
    script.write_text("true\n")
    seen: list[VmSpec] = []

    def run(given: VmSpec, command: object, *, live: bool) -> vm.VmResult:
        seen.append(given)
        return vm.VmResult(Outcome.PASSED, 0, "", "", 1.0, tmp_path, "")

    monkeypatch.setattr(vm, "run", run)
    words = shlex.split(vm.repeat_command(spec, script))
    assert words[:3] == ["python3", "-m", "harness"]
    assert main(words[3:]) == 0
    again = seen[0]
    assert vm.repeat_command(again, script) == vm.repeat_command(spec, script)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(HarnessError, match="at least 2560 MB"):
        VmSpec(memory_mb=1024)


def test_a_report_begins_with_the_checks_that_failed(tmp_path: Path) -> None:
    output = "FAILED: the root stays (is a b)\n" + "ok: more\n" * 200
    result = vm.VmResult(Outcome.FAILED, 1, output, "", 1.0, tmp_path, "again")
    assert result.report().splitlines()[1] == "FAILED: the root stays (is a b)"


@pytest.mark.parametrize(("parallel", "threads"), [(False, "thread=single"), (True, "thread=multi")])
def test_emulated_processors_take_turns_unless_asked_otherwise(
    parallel: bool, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "need", lambda program, package: Path(program))
    argv = qemu.machine(qemu.Accelerator.TCG, memory_mb=512, cpus=2, parallel=parallel)
    assert threads in argv[argv.index("-accel") + 1].split(",")
