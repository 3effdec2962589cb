"""The driver and precompiled modules from rpm packages: which are taken, what is refused, where files go."""

import json
import os
import subprocess
from pathlib import Path

import driver_files
import kmod_modules
import pytest
import rhel_root
import rpms
from driver_files import BuildError, Release

from driverctr.userspace import image
from driverctr.userspace.image import ModuleType, Origin
from tests.unit.conftest import FakeBin

VERSION = "535.309.01"
MACHINE = os.uname().machine
KERNEL = "5.14.0-427.13.1.el9_4.x86_64"
KMOD = f"kmod-nvidia-{VERSION}-5.14.0-427.13.1"
SCRIPT = Path(rhel_root.__file__).with_name("kmod-modules.sh")
OF_535 = (
    *("nvidia-driver", "nvidia-driver-cuda", "nvidia-driver-cuda-libs", "nvidia-driver-libs", "nvidia-driver-NVML"),
    *("nvidia-driver-NvFBCOpenGL", "nvidia-kmod-common", "nvidia-modprobe", "nvidia-persistenced"),
    *("kmod-nvidia-latest-dkms", "kmod-nvidia-open-dkms"),
)
OF_580 = (
    *("nvidia-driver", "nvidia-driver-cuda", "nvidia-driver-cuda-libs", "nvidia-driver-libs", "libnvidia-ml"),
    *("libnvidia-cfg", "libnvidia-gpucomp", "libnvidia-fbc", "nvidia-kmod-common", "nvidia-persistenced"),
    *("kmod-nvidia-open-dkms",),
)
# Of the packages that matter here what is in them; every other one has nothing.
PACKED = {
    "nvidia-driver": {
        "usr/share/licenses/nvidia-driver/LICENSE": "as NVIDIA says",
        "usr/share/doc/nvidia-driver/supported-gpus.json": '{"chips": []}',
        f"lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin": "firmware",
        "usr/bin/nvidia-sleep.sh": "of systemd",
    },
    "nvidia-driver-cuda": {"usr/bin/nvidia-smi": "program", "etc/OpenCL/vendors/nvidia.icd": "libnvidia-opencl.so.1\n"},
    "nvidia-driver-cuda-libs": {f"usr/lib64/libcuda.so.{VERSION}": "library"},
    "nvidia-persistenced": {"usr/sbin/nvidia-persistenced": "program"},
    "kmod-nvidia-latest-dkms": {f"usr/src/nvidia-{VERSION}/Makefile": "modules:\n"},
    "kmod-nvidia-open-dkms": {
        f"usr/src/nvidia-open-{VERSION}/Makefile": "open modules:\n",
        f"usr/src/nvidia-open-{VERSION}/dkms.conf": "PACKAGE_NAME=nvidia-open\n",
    },
}
SIGNED = "    Header V4 RSA/SHA512 Signature, key ID 1234abcd: OK\n    Payload SHA256 digest: OK\n"


def lines(names: tuple[str, ...], *versions: str) -> str:
    """What dnf repoquery tells of packages."""
    return "".join(f"{name} 3 {version} 1.el9 {MACHINE}\n" for name in names for version in versions)


@pytest.fixture
def offered(fake_bin: FakeBin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what repositories offer, and fake dnf, rpmkeys and unpacking by which it is fetched."""
    listed, trees = tmp_path / "offered", tmp_path / "trees"
    listed.write_text(lines(OF_535, "535.183.01", VERSION) + f"nvidia-driver-libs 3 {VERSION} 1.el9 i686\n")
    for name, files in PACKED.items():
        for path, text in files.items():
            (trees / name / path).parent.mkdir(parents=True, exist_ok=True)
            (trees / name / path).write_text(text)
    (tmp_path / "signed").write_text(SIGNED)
    monkeypatch.setenv("PATH", f"{fake_bin.folder}:{os.environ['PATH']}")
    download = (
        'for word; do case $word in --destdir=*) to=${word#*=} ;; *-3:*) : > "$to/${word%%-3:*}-${word##*-3:}.rpm" ;; '
        "esac; done"
    )
    fake_bin.add("dnf", f'case "$*" in *repoquery*) cat {listed} ;; *" download "*) {download} ;; esac')
    fake_bin.add("rpmkeys", f'case "$*" in *--checksig*) echo "$8:"; cat {tmp_path}/signed ;; esac')
    take = f'name=${{6##*/}}; name=${{name%-[0-9]*-[0-9]*}}; [ ! -d "{trees}/$name" ] || cp -a "{trees}/$name/." .'
    fake_bin.add("bash", take)
    monkeypatch.setattr(driver_files, "read_release", lambda: Release("rhel", "9.4"))
    monkeypatch.setattr(rpms, "read_release", lambda: Release("rhel", "9.4"))
    return listed


def test_nvidias_packages_are_laid_out_and_described(offered: Path, tmp_path: Path, fake_bin: FakeBin) -> None:
    out = tmp_path / "out"
    rhel_root.build(VERSION, out)
    described = image.read(out)
    assert (described.distribution, described.distribution_version) == ("rhel", "9.4")
    assert described.origin is Origin.PACKAGES
    assert [source.type for source in described.sources] == [ModuleType.PROPRIETARY, ModuleType.OPEN]
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() and not path.is_symlink()}
    assert files == {
        f"usr/lib64/libcuda.so.{VERSION}",
        "etc/OpenCL/vendors/nvidia.icd",
        "usr/bin/nvidia-smi",
        "usr/sbin/nvidia-persistenced",
        f"usr/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin",
        "usr/share/nvidia/supported-gpus.json",
        "usr/share/licenses/nvidia-driver/LICENSE",
        "usr/share/driverctr/image.json",
        "usr/share/driverctr/userspace.json",
        *(f"opt/driverctr/source/nvidia-{VERSION}/{name}" for name in ("LICENSE", "kernel/Makefile")),
        f"opt/driverctr/source/nvidia-{VERSION}/kernel-open/Makefile",
    }
    assert json.loads((out / driver_files.SUPPORTED_GPUS).read_text()) == {"chips": []}
    download = next(call for call in fake_bin.calls if " download " in call)
    assert f" nvidia-driver-3:{VERSION}-1.el9.{MACHINE} " in download
    assert "i686" not in download and "--setopt=*.module_hotfixes=1" in download


def test_packages_without_firmware_make_no_image(offered: Path, tmp_path: Path) -> None:
    (tmp_path / f"trees/nvidia-driver/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin").unlink()
    with pytest.raises(BuildError, match=rf"no package has GSP firmware, lib/firmware/nvidia/{VERSION}/"):
        rhel_root.build(VERSION, tmp_path / "out")


def test_names_are_those_of_the_branch(offered: Path) -> None:
    offered.write_text(lines(OF_580, "580.65.06"))
    assert {one.name for one in rhel_root.choose("580.65.06")} == set(OF_580)
    offered.write_text(lines(tuple(name for name in OF_580 if name != "libnvidia-gpucomp"), "580.65.06"))
    with pytest.raises(BuildError, match=r"no libnvidia-gpucomp of driver 580\.65\.06, but: none"):
        rhel_root.choose("580.65.06")


def test_what_is_missing_is_told_with_what_is_offered(offered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BuildError, match=r"no nvidia-driver of driver 535\.1\.2, but: 535\.183\.01, 535\.309\.01\."):
        rhel_root.choose("535.1.2")
    offered.write_text(lines(tuple(name for name in OF_535 if "dkms" not in name and "modprobe" not in name), VERSION))
    with pytest.raises(BuildError, match=r"no kmod-nvidia-latest-dkms or kmod-nvidia-open-dkms .*DRIVER_SOURCE=runf"):
        rhel_root.choose(VERSION)
    assert f"left out: the repositories have no nvidia-modprobe {VERSION}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("    Header SHA256 digest: OK\n    Payload SHA256 digest: OK\n", "it is not signed"),
        (SIGNED.replace("1234abcd: OK", "1234abcd: NOKEY"), "it is signed with another key: .*NOKEY"),
        (SIGNED.partition("    Payload")[0], "its signature does not cover the files in it"),
        (SIGNED.replace("digest: OK", "digest: BAD (Expected a != b)"), "Payload SHA256 digest: BAD"),
    ],
)
def test_a_package_that_cannot_be_trusted_is_refused(offered: Path, tmp_path: Path, said: str, words: str) -> None:
    (tmp_path / "signed").write_text(said)
    status = "exit 1" if "BAD" in said else ""
    FakeBin(tmp_path / "bin").add("rpmkeys", f"case $3 in --checksig) cat {tmp_path}/signed; {status} ;; esac")
    with pytest.raises(BuildError, match=rf"nvidia-driver-{VERSION}-1\.el9\.{MACHINE}\.rpm is refused: {words}"):
        rhel_root.build(VERSION, tmp_path / "out")
    assert not (tmp_path / "out/usr/lib64").exists()


def test_the_keys_are_those_of_enabled_repositories(offered: Path, tmp_path: Path) -> None:
    (tmp_path / "a.repo").write_text(
        "[on]\ngpgkey=file:///keys/$basearch-$releasever\n  file:///keys/more\n[off]\nenabled=0\ngpgkey=file:///no\n"
    )
    assert rpms.key_addresses(tmp_path) == [f"file:///keys/{MACHINE}-9", "file:///keys/more"]


def test_each_variable_of_a_keys_address_is_filled_in(offered: Path) -> None:
    address = "https://x/${releasever}/$releasever_major.$releasever_minor/$arch/$contentdir"
    assert rpms.filled(address) == f"https://x/9/9.4/{MACHINE}/$contentdir"


def test_a_failed_dnf_is_told_without_a_traceback(
    offered: Path, fake_bin: FakeBin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_bin.add("dnf", "echo 'Error: Failed to download metadata' >&2; exit 1")
    assert rhel_root.main([VERSION, str(tmp_path / "out")]) == 1
    assert "exit status 1. See its words above." in capsys.readouterr().err
    assert rhel_root.main([]) == 2


@pytest.fixture
def kmods(offered: Path, tmp_path: Path) -> Path:
    """A root in which an installed package has linked its modules; packages for that kernel and others are offered."""
    offered.write_text(
        f"{KMOD} 3 {VERSION} 2.el9_4 {MACHINE}\n{KMOD} 3 {VERSION} 10.el9_4 {MACHINE}\n"
        f"{KMOD} 3 {VERSION} 99.el9_2 {MACHINE}\n{KMOD}9 3 {VERSION} 1.el9_4 {MACHINE}\n"
        f"kmod-nvidia-open-{VERSION}-5.14.0-503.11.1 3 {VERSION} 3.el9_5 {MACHINE}\n"
        f"kmod-64k-nvidia-open-{VERSION}-5.14.0-503.11.1 3 {VERSION} 3.el9_5 {MACHINE}\n"
    )
    folder = tmp_path / "root/lib/modules" / KERNEL / "extra/drivers/video/nvidia"
    folder.mkdir(parents=True)
    for name in ("nvidia.ko", "nvidia-uvm.ko.xz", "nvidia-drm.ko"):
        (folder / name).write_text(f"{name} signed")
    return tmp_path / "root"


def test_a_kmod_package_is_installed_and_its_modules_copied(kmods: Path, tmp_path: Path, fake_bin: FakeBin) -> None:
    kmod_modules.collect(VERSION, "auto", KERNEL, tmp_path / "out", kmods)
    made = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert made == {name: f"{name} signed" for name in ("nvidia.ko", "nvidia-uvm.ko.xz")}
    (install,) = (call for call in fake_bin.calls if " install " in call)
    assert install.endswith(f"/{KMOD}-{VERSION}-10.el9_4.{MACHINE}.rpm")


@pytest.mark.parametrize(
    ("kernel", "module_type", "name"),
    [
        ("5.14.0-503.11.1.el9_5.x86_64", "open", "kmod-nvidia-open-535.309.01-5.14.0-503.11.1"),
        ("5.14.0-503.11.1.el9_5.x86_64", "auto", "kmod-nvidia-open-535.309.01-5.14.0-503.11.1"),
        ("5.14.0-503.11.1.el9_5.aarch64+64k", "auto", "kmod-64k-nvidia-open-535.309.01-5.14.0-503.11.1"),
    ],
)
def test_the_package_is_that_of_kernel_and_type(kmods: Path, kernel: str, module_type: str, name: str) -> None:
    assert kmod_modules.choose(VERSION, module_type, kernel).name == name


def test_the_better_type_comes_first() -> None:
    assert kmod_modules.types("535.309.01", "auto") == ["proprietary", "open"]
    assert kmod_modules.types("580.65.06", "auto") == ["open", "proprietary"]


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (
            "5.14.0-427.13.1.el9_3.x86_64",
            r"for el9_3; .* have kernels 5\.14\.0-427\.13\.1\.el9_2, 5\.14\.0-427\.13\.1\.el",
        ),
        ("6.1.0-56-amd64", "is no kernel of RHEL's"),
    ],
)
def test_a_kernel_without_a_package_is_told(kmods: Path, kernel: str, words: str) -> None:
    with pytest.raises(BuildError, match=words):
        kmod_modules.choose(VERSION, "auto", kernel)


def test_an_installation_that_linked_nothing_is_told(kmods: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is installed, and no modules lie below"):
        kmod_modules.collect(VERSION, "auto", KERNEL, tmp_path / "out", tmp_path / "empty")


@pytest.mark.allow_process("sh")
@pytest.mark.parametrize(("source", "status"), [("built", 0), ("signed", 1)])
def test_modules_come_from_where_the_build_says(source: str, status: int, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "MODULES_SOURCE": source}
    argv = ["sh", str(SCRIPT), str(tmp_path / "modules")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status and ("it is built or kmod" in done.stderr) == bool(status)
