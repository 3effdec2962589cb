"""A bundle for a bug report: made whatever is broken, bounded, told in an index, and without a secret."""

import io
import json
import os
import tarfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driverctr import bundle, bundlenode, bundleparts, conceal, doctorverb, parser, status, survey, verbs
from driverctr import config as settings
from driverctr.bundle import FAILED, INDEX, Member, Part
from driverctr.errors import Code, DriverError
from driverctr.history import FILE as HISTORY
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.status import Phase
from driverctr.steps import Tools
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.good_node import facts

PARTS = (*bundleparts.PARTS, *bundlenode.PARTS)
GPU = "sys/bus/pci/devices/0000:3b:00.0"
KERNEL_LOG = (
    "4,1,5000000,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.309.01\n6,2,6000000,-;usb 1-1: new device\n"
)
SECRETS = {
    "proxy": "pr0xyPassw0rd",
    "token": "C0ntr4ctT0ken42",
    "address": "hunter2-in-a-url",
    "line": "s3cr3tOfALine",
    "log": "s3cr3tOfABuild",
    "environment": "s3cr3tOfEnviron",
}


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conceal, "KNOWN", conceal.Known())


@pytest.fixture
def tools(paths: Paths, runner: Runner, fake_bin: FakeBin) -> Tools:
    return with_environment(paths, runner, fake_bin)


def with_environment(paths: Paths, runner: Runner, fake_bin: FakeBin, **environment: str) -> Tools:
    config = settings.load({"PATH": str(fake_bin.folder), **environment})
    return verbs.make_tools(config, runner.log, paths)


def gathered(tools: Tools, parts: tuple[Part, ...] = PARTS) -> dict[str, Member]:
    scene = bundleparts.Scene(tools)
    return {member.name: member for member in bundle.gather(parts, scene)}


def unpack(data: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for head in archive:
            file = archive.extractfile(head)
            assert file is not None
            yield head.name, file.read()


def test_on_a_bare_node_every_part_is_there_or_says_why_not(tools: Tools) -> None:
    found = gathered(tools)
    assert list(found) == [part.name for part in PARTS] and len(found) == len({*found}) == len(PARTS)
    assert all(member.content for member in found.values())
    assert b"image.json" in found["checks.txt"].content and found["plan.json"].note.startswith(FAILED)
    assert found["status-file.json"].note == found["image.json"].note == "not there"
    assert b"driver is not loaded" in found["driver.txt"].content


def test_one_that_fails_leaves_the_others(tools: Tools) -> None:
    def broken(scene: bundleparts.Scene) -> str:
        raise ZeroDivisionError("of a part")

    parts = (Part("a", "", broken), Part("b", "", lambda scene: "whole\n"), Part("c", "", lambda scene: ""))
    found = gathered(tools, parts)
    assert found["a"].content == b"not to be had: ZeroDivisionError: of a part\n" == f"{found['a'].note}\n".encode()
    assert found["b"].content == b"whole\n" and found["b"].note == ""
    assert found["c"].note == "empty"


def test_one_that_hangs_in_the_kernel_is_left_to_itself(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(scene: bundleparts.Scene) -> str:
        time.sleep(3)
        return ""

    monkeypatch.setattr(bundle, "PART_TIME", 0.1)
    began = time.monotonic()
    found = gathered(tools, (Part("a", "", hang), Part("b", "", lambda scene: "x")))
    assert time.monotonic() - began < 2
    assert "it did not come within" in found["a"].note and found["b"].content == b"x"


@pytest.mark.parametrize(("keeps_end", "kept"), [(True, b"line 9\n"), (False, b"line 0\n")])
def test_a_part_has_a_bound_and_is_cut_between_lines(tools: Tools, keeps_end: bool, kept: bytes) -> None:
    text = "".join(f"line {number}\n" for number in range(10))
    found = gathered(tools, (Part("a", "", lambda scene: text, most=10, keeps_end=keeps_end),))
    assert found["a"].content == kept
    assert found["a"].note == f"only the {'end' if keeps_end else 'beginning'}, 7 of 70 bytes"


def test_a_secret_at_the_cut_is_hidden_before_it_is_cut(tools: Tools) -> None:
    text = "x" * 30 + "\nhttps://me:hunter2-in-a-url@x.example/\n"
    for most in range(1, len(text)):
        parts = (Part("a", "", lambda scene: text, most=most, keeps_end=True),)
        assert b"hunter2" not in gathered(tools, parts)["a"].content


def test_the_whole_has_a_bound(tools: Tools) -> None:
    assert sum(part.most for part in PARTS) <= 9 << 20


def test_of_a_long_file_the_end_is_read_from_the_beginning_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert bundle.read_end(file, 20) == "line 998\nline 999\n"
    assert bundle.read_end(file, 1 << 20).startswith("line 0\n")
    assert bundle.read_end(Path("/proc/self/status")).startswith("Name:"), "a file that tells no size"


def run(tools: Tools, *words: str, **more: object) -> int:
    arguments = parser.make_parser().parse_args(["doctor", *words])
    return doctorverb.run(tools, Namespace(**vars(arguments), **more))


def test_the_archive_lies_there_whole_for_its_owner_with_the_index_first(
    tools: Tools, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b.tar.gz"
    assert run(tools, "--bundle", str(file)) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    members = list(unpack(file.read_bytes()))
    folders = {name.partition("/")[0] for name, _ in members}
    assert len(folders) == 1 and folders.pop().startswith(f"driverctr-{os.uname().nodename}-")
    names = [name.partition("/")[2] for name, _ in members]
    assert names == [INDEX, *(part.name for part in PARTS)]
    index = members[0][1].decode()
    assert all(part.name in index and part.what in index for part in PARTS) and "[not there]" in index
    said = capsys.readouterr().out
    assert f"{file}: {len(PARTS)} parts" in said and "checks.txt" in said and "packages.txt" not in said


def test_a_bundle_goes_to_standard_output_unless_that_is_a_terminal(
    tools: Tools, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tools, "--bundle", "-") == 0
    assert len(list(unpack(capsysbinary.readouterr().out))) == len(PARTS) + 1
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(DriverError, match="is a terminal") as refused:
        run(tools, "--bundle", "-")
    assert refused.value.code is Code.BAD_USAGE


def test_a_file_that_cannot_be_written_is_said(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DriverError, match="folder could not be written") as refused:
        run(tools, "--bundle", str(tmp_path / "folder"))
    assert refused.value.code is Code.NODE_FILE and "standard output" in refused.value.remedy


def test_a_setting_that_is_not_valid_is_a_finding_of_the_bundle(
    paths: Paths, tmp_path: Path, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "Paths", lambda: paths)
    monkeypatch.setenv("PATH", str(fake_bin.folder))
    monkeypatch.setenv("VERIFY_DEPTH", "deep")
    monkeypatch.setenv("UBUNTU_PRO_TOKEN", SECRETS["token"])
    file = tmp_path / "b.tar.gz"
    assert verbs.run(["doctor", "--bundle", str(file)]) == 0
    told = {name.partition("/")[2]: content for name, content in unpack(file.read_bytes())}
    document = json.loads(told["settings.json"])
    (refused,) = document["refused"]
    assert refused["code"] == "bad-setting" and "VERIFY_DEPTH='deep'" in refused["message"]
    assert document["counts"]["VERIFY_DEPTH"] == "smi" and document["given"]["VERIFY_DEPTH"] == "deep"
    assert document["given"]["UBUNTU_PRO_TOKEN"] == "..."


def test_a_node_that_serves_is_told_whole(
    paths: Paths, runner: Runner, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: facts())
    fake_bin.add("modinfo", 'echo "filename: $1"; echo "version: 535.309.01"; echo "alias: pci:v000010DEd*"')
    fake_bin.add("dpkg-query", 'echo "ii  kmod 30 amd64"; echo "ii  adduser 3 all"')
    release = "6.1.0-56-amd64"
    make_tree(
        paths.root,
        {
            f"{GPU}/vendor": "0x10de\n",
            f"{GPU}/device": "0x20b0\n",
            f"{GPU}/class": "0x030200\n",
            f"{GPU}/driver": "-> ../../../bus/pci/drivers/nvidia",
            f"{GPU}/resource": "0x00000000fb000000 0x00000000fbffffff 0x0000000000040200\n0x0 0x0 0x0\n",
            f"{GPU}/config": "\xde\x10",
            f"{GPU}/current_link_speed": "16.0 GT/s PCIe\n",
            "dev/kmsg": KERNEL_LOG,
            "proc/sys/kernel/osrelease": release,
            "proc/sys/kernel/ostype": "Linux",
            "proc/sys/kernel/version": "#1",
            "proc/sys/kernel/arch": "x86_64",
            "proc/modules": "nvidia 1 0 - Live 0x0\next4 1 0 - Live 0x0\n",
            "proc/driver/nvidia/version": "NVRM version: 535.309.01",
            "proc/driver/nvidia/params": "EnableMSI: 1",
            "proc/devices": "195 nvidia-frontend\n8 sd\n",
            "proc/self/mountinfo": "30 1 0:5 / /run/nvidia rw shared:1 - tmpfs tmpfs rw\n",
            "sys/module/nvidia/refcnt": "0",
            "sys/module/nvidia/version": "535.309.01",
            "sys/module/nvidia/initstate": "live",
            "sys/module/nvidia/parameters/NVreg_A": "1",
            f"lib/modules/{release}/updates/nvidia.ko": "",
            "run/nvidia/nvidia-driver.state": "42\n",
            "run/nvidia/driver/etc/passwd": "root",
            "var/tmp/driverctr-build-6.1.0-535.309.01-open.log": "make: *** Error 2\n",
            "var/lib/driverctr/store/.keep": "",
            f"var/lib/driverctr/store/{HISTORY}": '{"started": 1}\n',
            "drivers/nvidia.conf": "NVreg_A=1\n",
            "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
            "host-etc/os-release": 'ID=rhel\nVERSION_ID="9.4"\n',
            "dev/termination-log": '{"code": "in-use"}\n',
        },
    )
    status.publish(paths, status.begin(paths))
    found = gathered(with_environment(paths, runner, fake_bin))
    said = {name: member.content.decode() for name, member in found.items()}
    expected = {
        "checks.txt": "ok       privilege",
        "checks.json": '"schema": 1',
        "plan.txt": "driver 535.309.01",
        "plan.json": '"steps"',
        "status.txt": "starting",
        "who.txt": "nobody uses the driver",
        "who.json": '"in_use": false',
        "status-file.json": Phase.STARTING.value,
        "history.jsonl": '{"started": 1}',
        "termination.json": "in-use",
        "markers.txt": "nvidia-driver.state, 3 bytes",
        "build.log": "make: *** Error 2",
        "modules-loaded.json": "NVreg_A",
        "modinfo.txt": "version: 535.309.01",
        "driver.txt": "EnableMSI: 1",
        "parameters.txt": "NVreg_A=1",
        "kernel-log.txt": "[    5.000000] NVRM: loading",
        "pci.txt": "0000:3b:00.0 10de:20b0, driver nvidia",
        "devices.txt": "195 nvidia-frontend",
        "mounts.txt": "tmpfs (tmpfs) / at /run/nvidia",
        "packages.txt": "ii  adduser 3 all\nii  kmod 30 amd64\n",
        "os-release.txt": "9.4",
    }
    assert not {name: said[name] for name, text in expected.items() if text not in said[name]}
    assert (
        "resource 0: 0xfb000000-0xfbffffff (16384 KiB) memory" in said["pci.txt"] and "00: c3 9e 10" in said["pci.txt"]
    )
    assert "link speed: 16.0 GT/s" in said["pci.txt"] and "resource 1" not in said["pci.txt"]
    assert "usb" not in said["kernel-log.txt"] and "ext4" not in said["modules-loaded.json"]
    assert "passwd" not in said["markers.txt"] and "alias" not in said["modinfo.txt"]


def test_without_privileges_what_cannot_be_read_is_said(
    paths: Paths, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(paths.root, {f"{GPU}/vendor": "0x10de\n", f"{GPU}/config": "", "dev/kmsg": KERNEL_LOG})
    opened = Path.open

    def refuse(path: Path, *words: object, **named: object) -> object:
        if path.name in ("config", "mountinfo"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *words, **named)  # type: ignore[call-overload]  # as it was called

    plainly = os.open

    def deny(path: str, *words: int) -> int:
        if Path(path).name == "kmsg":
            raise PermissionError(1, "Operation not permitted")
        return plainly(path, *words)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "open", deny)
    parts = tuple(part for part in PARTS if part.name in ("pci.txt", "kernel-log.txt"))
    found = gathered(tools, parts)
    assert b"configuration: not to be read: Permission denied" in found["pci.txt"].content
    assert b"cannot be read: Operation not permitted" in found["kernel-log.txt"].content


def test_a_gpu_that_fell_off_the_bus_is_told(paths: Paths, tools: Tools) -> None:
    make_tree(paths.root, {f"{GPU}/vendor": "0x10de\n"})
    (paths.root / GPU / "config").write_bytes(b"\xff" * 256)
    assert b"it does not answer on the bus" in gathered(tools)["pci.txt"].content


CONCEALED = (
    "build.log",
    "history.jsonl",
    "image.json",
    "kernel-log.txt",
    "kernel.txt",
    "markers.txt",
    "os-release.txt",
    "packages.txt",
    "parameters.txt",
    "settings.json",
    "status-file.json",
    "status.txt",
    "termination.json",
    "versions.txt",
)
"""Parts in which a secret was planted."""


@pytest.fixture
def plant(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Secrets wherever one may lie that a bundle reads."""

    def planted() -> None:
        error = DriverError(Code.NO_MODULES, f"https://joe:{SECRETS['address']}@x.example/: 403", "")
        status.publish(paths, status.begin(paths).changed(failure=status.describe_failure(error)))
        address = f"https://joe:{SECRETS['address']}@x.example/"
        make_tree(
            paths.root,
            {
                "dev/kmsg": f"4,1,5,-;NVRM: fetched {address}\n",
                "dev/termination-log": json.dumps({"message": address}),
                "proc/cmdline": f"root=/dev/sda1 password={SECRETS['line']} quiet",
                "proc/1/cmdline": f"curl\0--password\0{SECRETS['line']}\0--password={SECRETS['line']}",
                "drivers/nvidia.conf": f"# {address}\n",
                "run/nvidia/other": f"Authorization: Bearer {SECRETS['line']}\n",
                "var/tmp/driverctr-build-1.log": f"{address}?X-Amz-Signature={SECRETS['log']}\n",
                f"var/lib/driverctr/store/{HISTORY}": json.dumps({"code": address}) + "\n",
                "usr/share/driverctr/image.json": json.dumps({"driver_version": address}),
                "etc/os-release": f"HOME_URL={address}\n",
                "proc/self/mountinfo": f"30 1 0:5 / /run/nvidia rw - cifs //s rw,password={SECRETS['line']}\n",
            },
        )

    return planted


def test_no_secret_is_in_any_member(
    paths: Paths, runner: Runner, fake_bin: FakeBin, plant: Callable[[], None], tmp_path: Path
) -> None:
    plant()
    environment = {
        "https_proxy": f"http://joe:{SECRETS['proxy']}@proxy.example:3128",
        "UBUNTU_PRO_TOKEN": SECRETS["token"],
        "REMOTE_URL": f"https://joe:{SECRETS['address']}@modules.example/",
        "ARCHIVE_URL": f"https://joe:{SECRETS['address']}@archive.example/debian bookworm main",
    }
    conceal.learn_environment({**environment, "SOME_PASSWORD": SECRETS["environment"]})
    for tool in ("dpkg-query", "modinfo"):
        fake_bin.add(tool, f'echo "{SECRETS["environment"]} {environment["https_proxy"]}"')
    tools = with_environment(paths, runner, fake_bin, **environment)
    file, refused = tmp_path / "b.tar.gz", DriverError(Code.BAD_SETTING, environment["REMOTE_URL"], "")
    assert run(tools, "--bundle", str(file), refused={"REMOTE_URL": refused}, given=environment) == 0
    members = list(unpack(file.read_bytes()))
    leaks = [
        (name, what) for name, content in members for what, secret in SECRETS.items() if secret.encode() in content
    ]
    assert not leaks
    assert all(any(b"..." in content for name, content in members if name.endswith(f"/{part}")) for part in CONCEALED)


def test_the_page_has_each_part_and_its_bound() -> None:
    page = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    rows = [f"| `{part.name}` | {part.what} | {part.most >> 10} KiB |" for part in PARTS]
    assert not [row for row in rows if row not in page]
    assert f"is {-(-sum(part.most for part in PARTS) >> 20)} MiB at most" in page.replace("\n", " ")
