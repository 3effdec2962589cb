"""Modules made elsewhere: taken whole and to the byte, or refused with the reason before anything is written."""

import gzip
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.facts.loading import SIGNATURE_MARK
from driverctr.hashing import Hashes, sha256
from driverctr.modules import ModuleSet, Wish
from driverctr.modules.given import Given
from driverctr.modules.ondisk import OnDisk, verify
from driverctr.run import Runner
from driverctr.settings import ModuleType
from tests.unit.conftest import FakeBin
from tests.unit.module_files import module_bytes

RELEASE = "5.15.0-105-generic"
VERSION = "535.309.01"
NAMES = ("nvidia", "nvidia-uvm", "nvidia-modeset")
SIGNATURE = b"\x30\x82pkcs7" + SIGNATURE_MARK


@dataclass
class Bench:
    """A folder of modules made elsewhere, and who takes them."""

    folder: Path
    given: Given

    def put(self, name: str, *, suffix: str = "", end: bytes = b"", changes: Mapping[str, str] | None = None) -> Path:
        """One module as it should be, but for the changes of its fields."""
        licence = "Dual MIT/GPL" if name == "nvidia-uvm" else "NVIDIA"
        fields = {"version": VERSION, "license": licence, "vermagic": f"{RELEASE} SMP mod_unload modversions "}
        content = module_bytes({**fields, **(changes or {})}) + end
        packed = {".gz": gzip.compress(content), ".xz": lzma.compress(content)}.get(suffix, content)
        file = self.folder / f"{name}.ko{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(packed)
        return file

    def put_all(self, suffix: str = "", **changes: str) -> None:
        for name in NAMES:
            self.put(name, suffix=suffix, changes=changes)

    def take(self, kind: ModuleType = ModuleType.AUTO) -> ModuleSet:
        return self.given.find(RELEASE, VERSION, kind)

    def refused(self, kind: ModuleType = ModuleType.AUTO) -> DriverError:
        with pytest.raises(DriverError) as refused:
            self.take(kind)
        assert not list(self.given.folder.rglob("*.ko")) and not list(self.given.scratch.iterdir())
        assert refused.value.remedy
        return refused.value


@pytest.fixture
def bench(tmp_path: Path, runner: Runner) -> Bench:
    folder = tmp_path / "made elsewhere"
    folder.mkdir()
    (tmp_path / "scratch").mkdir()
    return Bench(folder, Given(folder, NAMES, runner, tmp_path / "modules", tmp_path / "scratch"))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_signed_modules_are_taken_to_the_byte_however_they_are_packed(
    bench: Bench, fake_bin: FakeBin, suffix: str
) -> None:
    fake_bin.add("zstd", 'exec /bin/cp "$5" "$4"')
    plain = {name: module_bytes({}) for name in NAMES}
    for name in NAMES:
        file = bench.put(name, end=SIGNATURE)
        plain[name] = file.read_bytes()
        file.unlink()
        bench.put(name, suffix=suffix, end=SIGNATURE)
    found = bench.take()
    assert {name: module.file.read_bytes() for name, module in found.modules.items()} == plain
    assert OnDisk(bench.given.folder).find(Wish(RELEASE, VERSION, "proprietary")) == found
    verify(found, meanwhile=lambda: None, hashes=Hashes())


def test_the_licence_tells_the_type_and_peermem_comes_along(bench: Bench) -> None:
    bench.put_all(license="Dual MIT/GPL")
    bench.put("extra/nvidia-peermem", changes={"license": "Linux-OpenIB"})
    found = bench.take()
    assert found.module_type == "open" and list(found.modules) == [*NAMES, "nvidia-peermem"]
    assert found.modules["nvidia"].sha256 == sha256(bench.folder / "nvidia.ko")


def test_a_name_is_spelt_with_either_stroke(bench: Bench) -> None:
    for name in NAMES:
        bench.put(name.replace("-", "_"))
    assert list(bench.take().modules) == list(NAMES)


@pytest.mark.parametrize(
    ("name", "changes", "code", "told"),
    [
        ("nvidia-uvm", {"vermagic": "5.15.0-106-generic SMP "}, Code.WRONG_KERNEL, "5.15.0-106-generic"),
        ("nvidia-uvm", {"vermagic": ""}, Code.WRONG_KERNEL, "kernel unknown"),
        ("nvidia-modeset", {"version": "535.1"}, Code.OTHER_VERSION, "driver 535.1, the userspace"),
        ("nvidia", {"license": "GPL"}, Code.NO_MODULES, "licence 'GPL'"),
    ],
)
def test_a_module_of_something_else_is_named(
    bench: Bench, name: str, changes: dict[str, str], code: Code, told: str
) -> None:
    bench.put_all()
    bench.put(name, changes=changes)
    refused = bench.refused()
    assert refused.code is code and name in refused.message and told in refused.message


def test_the_other_type_is_refused_where_one_was_asked_for(bench: Bench) -> None:
    bench.put_all()
    assert bench.take(ModuleType.PROPRIETARY).module_type == "proprietary"
    with pytest.raises(DriverError, match="KERNEL_MODULE_TYPE=open") as refused:
        bench.take(ModuleType.OPEN)
    assert refused.value.code is Code.WRONG_MODULE_TYPE


def test_a_module_that_is_missing_is_named_with_those_there_are(bench: Bench) -> None:
    bench.put("nvidia")
    refused = bench.refused()
    assert "no nvidia-uvm, nvidia-modeset; it has: nvidia.ko" in refused.message
    (bench.folder / "nvidia.ko").unlink()
    assert "it has: no module" in bench.refused().message


def test_two_files_of_one_module_are_not_chosen_from(bench: Bench) -> None:
    bench.put_all()
    bench.put("updates/nvidia")
    assert "more than one" in bench.refused().message


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_packed_module_that_was_cut_short_is_named(bench: Bench, suffix: str) -> None:
    bench.put_all(suffix=suffix)
    file = bench.folder / f"nvidia-uvm.ko{suffix}"
    file.write_bytes(file.read_bytes()[:-30])
    assert f"nvidia-uvm.ko{suffix} cannot be unpacked" in bench.refused().message


def test_what_is_no_module_is_named(bench: Bench) -> None:
    bench.put_all()
    (bench.folder / "nvidia.ko").write_text("<html>")
    assert "elsewhere/nvidia.ko is not a whole" in bench.refused().message


def test_another_processors_modules_are_refused(bench: Bench) -> None:
    bench.put_all()
    file = bench.folder / "nvidia-uvm.ko"
    content = bytearray(file.read_bytes())
    content[18] = 183  # e_machine of elf(5): aarch64
    file.write_bytes(content)
    refused = bench.refused()
    assert refused.code is Code.WRONG_ARCHITECTURE and "aarch64" in refused.message


def test_all_modules_are_signed_or_none(bench: Bench) -> None:
    bench.put_all()
    bench.put("nvidia", end=SIGNATURE)
    refused = bench.refused()
    assert refused.code is Code.SIGNATURE_NEEDED
    assert "nvidia-uvm, nvidia-modeset has no signature, and nvidia has" in refused.message
