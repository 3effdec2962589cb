"""The driver from a run-file: what is laid out, what the installer is called with, and each bad file's one line."""

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path

import archive
import pytest
import runfile_root
from driver_files import BuildError

from driverctr.userspace import image, listing
from driverctr.userspace.image import ModuleType, Origin
from tests.unit.runfiles import FILES, MACHINE, MANIFEST, VERSION, Server, fill, pack, refuse, serving, whole

pytestmark = pytest.mark.allow_process("sh")

LIBRARIES = "usr/lib64"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a stage of a Dockerfile, into which the installer installs."""
    root = tmp_path / "root"
    for folder in (LIBRARIES, "usr/lib", "usr/bin", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "etc/os-release").write_text('NAME="Some Linux"\nID="some"\nVERSION_ID="9.4"\n# ID=none\n')
    (root / LIBRARIES / "libc.so.6").write_text("of the base")
    monkeypatch.setenv("STAND_IN_ROOT", str(root))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("tempfile.tempdir", None)
    return root


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """The files of the archive."""
    fill(tmp_path / "content", f"/{LIBRARIES}")
    return tmp_path / "content"


@pytest.fixture
def file(tmp_path: Path, content: Path) -> Path:
    """The run-file by NVIDIA's name."""
    return pack(content, tmp_path / archive.name_of(VERSION))


def build(root: Path, *words: str | Path, version: str = VERSION) -> Path:
    out = root.parent / "out"
    runfile_root.build(runfile_root.parse(["--version", version, *(str(word) for word in words), str(out)]), root)
    return out


def refused(root: Path, *words: str | Path, version: str = VERSION) -> str:
    with pytest.raises(BuildError) as caught:
        build(root, *words, version=version)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_driver_is_laid_out_and_described(root: Path, file: Path) -> None:
    out = build(root, "--file", file, "--base-url", "", "--sha256", "")
    described = image.read(out)
    assert described.driver_version.text == VERSION
    assert (described.distribution, described.distribution_version) == ("some", "9.4")
    assert described.origin is Origin.RUNFILE
    assert [source.type for source in described.sources] == [ModuleType.PROPRIETARY, ModuleType.OPEN]
    listed = listing.read(out)
    assert {item.path for item in listed.items} == {
        "etc/OpenCL/vendors/nvidia.icd",
        f"usr/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin",
        *(f"usr/bin/nvidia-{name}" for name in ("smi", "persistenced", "modprobe")),
        *(f"{LIBRARIES}/{name}.so.{end}" for name in ("libcuda", "libnvidia-ml") for end in ("1", VERSION)),
    }
    assert (out / "usr/share/nvidia/supported-gpus.json").read_text() == FILES["supported-gpus/supported-gpus.json"]


def test_links_are_relative_and_modes_stay(root: Path, file: Path) -> None:
    out = build(root, "--file", file)
    assert (root / LIBRARIES / "libnvidia-ml.so.1").readlink().is_absolute()
    assert (out / LIBRARIES / "libnvidia-ml.so.1").readlink() == Path(f"libnvidia-ml.so.{VERSION}")
    assert (out / "usr/bin/nvidia-smi").stat().st_mode & 0o7777 == 0o755
    assert (out / "usr/bin/nvidia-modprobe").stat().st_mode & 0o7777 == 0o4755


def test_module_sources_lie_where_neighbours_look_for_them(root: Path, file: Path) -> None:
    out = build(root, "--file", file)
    place = out / f"opt/driverctr/source/nvidia-{VERSION}"
    assert (out / f"usr/src/nvidia-{VERSION}").resolve() == place
    assert sorted(path.name for path in place.iterdir()) == ["LICENSE", "kernel", "kernel-open"]
    assert [path.name for path in (place / "kernel").iterdir()] == ["Makefile"]
    assert not (root / "usr/src").exists()


def test_the_installer_builds_nothing_and_leaves_x_and_itself_out(root: Path, file: Path) -> None:
    out = build(root, "--file", file)
    arguments = (out / "usr/share/doc/NVIDIA_GLX-1.0/arguments").read_text().split()
    assert {"--silent", "--no-kernel-module", "--no-rpms", "--no-backup", "--x-module-path=/tmp/null"} <= set(arguments)
    names = {path.name for path in out.rglob("*")}
    assert not names & {"nvidia-installer", "nvidia-uninstall", "nvidia_drv.so", "log", "libc.so.6"}
    assert not names & {"lib32", "nvidia-suspend.service"}


def test_32_bit_libraries_are_declined_where_the_installer_knows_them(
    root: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runfile_root, "FLAGS_OF_MACHINE", {})
    out = build(root, "--file", file)
    assert (out / "usr/lib32").is_dir() == (MACHINE == "x86_64"), "what the flag is for"


def test_a_folder_is_searched_for_the_file_of_the_version(root: Path, file: Path) -> None:
    assert "is not a run-file" not in str(build(root, "--file", file.parent))
    assert refused(root, "--file", file.parent, version="535.261.03") == (
        f"{file.parent} has {file.name}, not NVIDIA-Linux-{MACHINE}-535.261.03.run."
        " Give the file of DRIVER_VERSION and TARGETARCH (RUNFILE), or correct these"
    )
    assert "there is no run-file" in refused(root, "--file", file.parent / "elsewhere")
    assert "neither BASE_URL nor RUNFILE is given" in refused(root)


def test_the_file_is_fetched_and_compared_with_the_servers_sum(root: Path, file: Path) -> None:
    served = file.read_bytes()
    with serving(Server(served, whole)) as server:
        server.files["sum"] = f"{hashlib.sha256(served).hexdigest()}  {file.name}".encode()
        assert (build(root, "--base-url", f"{server.url}/tesla/") / "usr/bin/nvidia-smi").is_file()
        assert server.paths[0] == f"/tesla/{VERSION}/{file.name}"
        server.files["sum"] = b"ab" * 32
        said = refused(root, "--base-url", f"{server.url}/tesla")
    assert f".run.sha256sum says {'ab' * 32}" in said
    assert not [path for path in file.parent.iterdir() if path.name.startswith("tmp")]


def test_what_the_server_lacks_is_said(root: Path) -> None:
    with serving(Server(b"", refuse(404))) as server:
        assert "says 404 Not Found" in refused(root, "--base-url", server.url)


def test_a_page_of_a_proxy_is_no_run_file(root: Path) -> None:
    with serving(Server(b"<html>log in first</html>", whole)) as server:
        said = refused(root, "--base-url", server.url)
    assert "is not a run-file of NVIDIA's driver: it begins with '<html>log in first</html>'" in said


def test_a_sum_given_wins_and_must_be_one(root: Path, file: Path) -> None:
    told = hashlib.sha256(file.read_bytes()).hexdigest()
    assert build(root, "--file", file, "--sha256", told).is_dir()
    assert f"has SHA-256 {told}, RUNFILE_SHA256 says" in refused(root, "--file", file, "--sha256", "cd" * 32)
    assert "RUNFILE_SHA256=1234 is no SHA-256" in refused(root, "--file", file, "--sha256", "1234")


def test_a_file_cut_short_is_refused_by_its_own_sum(root: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    said = refused(root, "--file", file)
    assert f"{file} is damaged or cut short, at {file.stat().st_size} bytes: Error in checksums" in said


def test_a_file_of_another_version_or_processor_is_refused(root: Path, content: Path, tmp_path: Path) -> None:
    other = pack(content, tmp_path / "any.run", version="535.261.03")
    assert f"any.run holds driver 535.261.03, DRIVER_VERSION is {VERSION}" in refused(root, "--file", other)
    other = pack(content, tmp_path / "any.run", machine="riscv64")
    assert f"any.run is for riscv64, the image is for {MACHINE}" in refused(root, "--file", other)


def test_an_archive_that_holds_another_version_than_it_says_is_refused(root: Path, content: Path) -> None:
    (content / ".manifest").write_text(MANIFEST.replace(VERSION, "535.261.03", 1))
    said = refused(root, "--file", pack(content, content.parent / "any.run"))
    assert said.startswith(f"the run-file holds driver 535.261.03 by its .manifest, not {VERSION}")


def test_the_file_of_a_vgpu_guest_has_the_plain_version_inside(root: Path, content: Path) -> None:
    version = f"{VERSION}-grid"
    file = pack(content, content.parent / archive.name_of(version))
    out = build(root, "--file", file, version=version)
    assert image.read(out).driver_version.text == version
    assert (out / f"opt/driverctr/source/nvidia-{VERSION}/kernel/Makefile").is_file()


def test_a_failed_installer_shows_the_end_of_its_log(
    root: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "Unable to find the system utility 'ldconfig'")
    with pytest.raises(BuildError, match=r"nvidia-installer ended with 1; the end of its log follows\.") as caught:
        build(root, "--file", file)
    assert caught.value.details.splitlines()[-1] == "ERROR: Unable to find the system utility 'ldconfig'"
    assert runfile_root.main(["--version", VERSION, "--file", "/nowhere", str(root.parent / "out")]) == 1
    assert "there is no run-file /nowhere. Put" in capsys.readouterr().err


def test_an_installer_that_installs_nothing_is_not_believed(root: Path, content: Path) -> None:
    (content / "nvidia-installer").write_text("#!/bin/sh\nexit 0\n")
    said = refused(root, "--file", pack(content, content.parent / "any.run"))
    assert "installed no nvidia-smi, nvidia-persistenced, libcuda.so.1, libnvidia-ml.so.1" in said


def test_an_archive_without_module_sources_is_refused(root: Path, content: Path) -> None:
    for folder in ("kernel", "kernel-open"):
        shutil.rmtree(content / folder)
    lines = [line for line in MANIFEST.splitlines() if "KERNEL_MODULE_SRC" not in line]
    (content / ".manifest").write_text("\n".join(lines).replace("ABSOLUTE", f"/{LIBRARIES}") + "\n")
    assert "has no module source" in refused(root, "--file", pack(content, content.parent / "any.run"))


def test_a_disk_too_small_is_known_before_unpacking(root: Path, content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(content, content.parent / "any.run", size_kib=600 << 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 100 << 20))
    assert "is full: any.run has 600 MiB to unpack, 100 MiB free" in refused(root, "--file", file)


def test_a_base_that_is_no_distribution_is_refused(root: Path, file: Path) -> None:
    (root / "etc/os-release").unlink()
    assert "has no etc/os-release" in refused(root, "--file", file)


def test_what_the_description_says_is_json_with_all_fields(root: Path, file: Path) -> None:
    record = json.loads((build(root, "--file", file) / image.DESCRIPTION).read_text())
    fields = {"driver_version", "sources", "distribution", "distribution_version", "architecture", "origin"}
    assert record.keys() == fields | {"cuda_version"} and record["cuda_version"] == "", "text cannot be asked"
    assert record["architecture"] in ("amd64", "arm64", MACHINE)
