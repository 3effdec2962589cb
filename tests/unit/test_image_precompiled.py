"""What image builds of precompiled images run: Canonical's modules taken as they are, the tree left without sources."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import precompiled
import pytest
import signed_modules
from driver_files import BuildError

from driverctr.errors import DriverError
from driverctr.facts.loading import SIGNATURE_MARK
from driverctr.userspace import image, tag
from tests.unit.conftest import FakeBin, make_tree

BAKE = Path(precompiled.__file__).with_name("bake.sh")
KERNEL = "5.15.0-105-generic"
BRANCH = "535-server"
PACKAGE = f"linux-modules-nvidia-{BRANCH}-{KERNEL}"
NAMES = ("nvidia.ko", "nvidia-uvm.ko", "nvidia-modeset.ko", "nvidia-peermem.ko", "nvidia-drm.ko")


@pytest.fixture
def ubuntu(tmp_path: Path, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root in which apt-get has linked and signed the modules of one branch; another's signatures lie there too."""
    root = tmp_path / "ubuntu"
    kernel = root / "lib/modules" / KERNEL / "kernel"
    make_tree(kernel / "nvidia-535srv", {"bits/nvidia.o": "", "bits/nvidia.ko.sig": "", "bits/BUILD": ""})
    make_tree(kernel / "nvidia-570srv", {"bits/nvidia.ko.sig": ""})
    for name in NAMES:
        (kernel / "nvidia-535srv" / name).write_bytes(f"{name} signed".encode() + SIGNATURE_MARK)
    listed = f"/lib/modules/{KERNEL}/kernel/nvidia-535srv/bits/BUILD"
    fake_bin.add("apt-get")
    fake_bin.add("apt-cache", f"echo {PACKAGE} linux-modules-nvidia-{BRANCH}-generic")
    fake_bin.add(
        "dpkg-query",
        f'case "$*" in --show*) echo {PACKAGE}; echo linux-objects-nvidia-{BRANCH}-{KERNEL};; *) echo {listed};; esac',
    )
    monkeypatch.setenv("PATH", str(fake_bin.folder))
    return root


def test_canonicals_modules_are_installed_and_copied_to_the_byte(
    ubuntu: Path, tmp_path: Path, fake_bin: FakeBin
) -> None:
    signed_modules.collect(BRANCH, KERNEL, tmp_path / "out", ubuntu)
    made = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert made == {name: f"{name} signed".encode() + SIGNATURE_MARK for name in NAMES if "drm" not in name}
    install = "apt-get install --yes --no-install-recommends"
    assert f"{install} {PACKAGE} linux-signatures-nvidia-{KERNEL}" in fake_bin.calls


def test_a_kernel_that_canonical_has_none_for_is_told_with_those_it_has(ubuntu: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=rf"no linux-modules-nvidia-{BRANCH}-5\.15\.0-99.*have kernels {KERNEL}\."):
        signed_modules.collect(BRANCH, "5.15.0-99-generic", tmp_path / "out", ubuntu)


def test_a_module_without_a_signature_is_refused(ubuntu: Path, tmp_path: Path) -> None:
    (ubuntu / "lib/modules" / KERNEL / "kernel/nvidia-535srv/nvidia-uvm.ko").write_bytes(b"plain")
    with pytest.raises(BuildError, match=r"nvidia-uvm\.ko has no signature"):
        signed_modules.collect(BRANCH, KERNEL, tmp_path / "out", ubuntu)


def test_an_installation_that_linked_nothing_is_told(ubuntu: Path, tmp_path: Path) -> None:
    for name in NAMES:
        (ubuntu / "lib/modules" / KERNEL / "kernel/nvidia-535srv" / name).unlink()
    with pytest.raises(BuildError, match="no modules lie below"):
        signed_modules.collect(BRANCH, KERNEL, tmp_path / "out", ubuntu)


def test_a_failing_package_tool_ends_the_build_with_its_words_above(
    ubuntu: Path, tmp_path: Path, fake_bin: FakeBin, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_bin.add("apt-get", "exit 100")
    assert signed_modules.main(["535.309.01", KERNEL, str(tmp_path / "out")]) == 1
    assert "100" in capsys.readouterr().err


@pytest.fixture
def laid_out(tmp_path: Path) -> Path:
    """A driver root with its source, and modules for one kernel."""
    root = tmp_path / "out"
    record = {
        "driver_version": "535.309.01",
        "sources": [{"type": "open", "version": "535.309.01", "path": "/opt/driverctr/source/x", "sha256": "11" * 32}],
        "distribution": "ubuntu",
        "architecture": "amd64",
    }
    files: dict[str, str | None] = {
        "usr/share/driverctr/image.json": json.dumps(record),
        "opt/driverctr/source/nvidia-535.309.01/kernel/Kbuild": "",
        "usr/src/nvidia-535.309.01": "-> ../../opt/driverctr/source/nvidia-535.309.01",
        f"opt/driverctr/modules/{KERNEL}/535.309.01-open/manifest.json": json.dumps(
            {"kernel_release": KERNEL, "module_type": "open"}
        ),
    }
    make_tree(root, files)
    return root


def test_a_precompiled_image_says_so_and_has_no_source(laid_out: Path) -> None:
    assert precompiled.main([KERNEL, str(laid_out)]) == 0
    found = image.read(laid_out)
    assert (found.kernel_release, found.module_type) == (KERNEL, "open") and found.sources[0].sha256 == "11" * 32
    assert not (laid_out / "opt/driverctr/source").exists() and not list((laid_out / "usr/src").iterdir())


def test_an_image_is_precompiled_for_the_kernel_of_its_modules_alone(
    laid_out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert precompiled.main(["6.8.0-1-generic", str(laid_out)]) == 1
    assert f"has modules for {KERNEL}, not for 6.8.0-1-generic alone" in capsys.readouterr().err
    assert precompiled.main([]) == 2


def test_what_the_classic_builder_makes_on_its_way_refuses_every_node(laid_out: Path) -> None:
    shutil.rmtree(laid_out / "opt/driverctr/modules")
    assert precompiled.main(["", str(laid_out)]) == 0
    found = image.read(laid_out)
    with pytest.raises(DriverError, match="built without KERNEL_VERSION"):
        tag.check_kernel(found, KERNEL, fallback=False)


@pytest.mark.allow_process("sh")
@pytest.mark.parametrize(("platform", "status"), [("", 0), ("linux/amd64", 1)])
def test_an_image_for_no_kernel_is_made_by_no_builder_that_was_asked_for_it(
    platform: str, status: int, tmp_path: Path
) -> None:
    script = (BAKE.read_text()).replace("/opt/driverctr", str(tmp_path))
    environment = {"PATH": os.environ["PATH"], "TARGETPLATFORM": platform}
    done = subprocess.run(["sh", "-c", script, "bake", str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == status and "needs --build-arg KERNEL_VERSION" in done.stderr
