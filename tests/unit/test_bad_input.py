"""Bad input: each with one clear error that names what, the value and the fix, and a code of its own."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from driverctr import config as settings
from driverctr import files, markers, moduletree, parameters, pidlock, survey, wishes
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.hashing import Hashes, sha256
from driverctr.kmod import Kmod
from driverctr.log import Log
from driverctr.modules import ModuleSet, describe, failures, write_manifest
from driverctr.modules.drafts import Draft, publish, scratch_folder, told_if_full
from driverctr.modules.ondisk import OnDisk, verify
from driverctr.paths import Paths
from driverctr.plan import StepName
from driverctr.userspace.image import Image
from driverctr.versions import DriverVersion
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_life import Life, life
from tests.unit.module_files import write_module
from tests.unit.test_module_sets import WISH, made

__all__ = ["life", "made"]

NOT_TEXT = os.fsdecode(b"caf\xe9")
TYPES = {"NVreg_A": "int", "NVreg_U": "uint", "flag": "bool", "text": "charp"}


def image(version: str = "535.309.01", architecture: str = "amd64") -> Image:
    return Image(DriverVersion(version), (), "debian", architecture)


def refused(environment: dict[str, str], flags: dict[str, str] | None = None) -> DriverError:
    with pytest.raises(DriverError) as raised:
        settings.load(environment, flags)
    assert raised.value.code is Code.BAD_SETTING and raised.value.remedy
    return raised.value


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DRIVER_VERSION", "latest"),
        ("DRIVER_VERSION", "535.309.01 "),
        ("DRIVER_VERSION", NOT_TEXT),
        ("KERNEL_MODULE_TYPE", "closed"),
        ("KERNEL_MODULE_TYPE", NOT_TEXT),
        ("DRIVER_CONFIG_DIGEST", NOT_TEXT),
        ("DRIVER_CONFIG_DIGEST", "one\ntwo"),
        ("MODULES_DIR", "modules"),
        ("MODULES_DIR", f"/{NOT_TEXT}"),
        ("UNKNOWN_PARAMETERS", "ignore"),
        ("VERIFY_TIMEOUT", "x" * 100_000),
        ("VERIFY_TIMEOUT", "9" * 5000),
        ("VERIFY_GPUS", "9" * 5000),
        ("VERIFY_GPUS", "00000199999"),
        ("STORE_MAX_SIZE", "9" * 5000 + "G"),
        ("STORE_MAX_SIZE", "00000199999G"),
    ],
)
def test_a_variable_that_is_not_valid_is_named_with_its_value_and_the_message_can_be_written(
    variable: str, value: str
) -> None:
    error = refused({variable: value})
    assert f"{variable}=" in error.message and variable + NOT_TEXT not in error.message
    assert len(str(error).encode()) < 1000


@pytest.mark.parametrize("threads", ["0", "x", "100000", "-1", "1.5", "²", "9" * 5000, "0" * 5000])
def test_a_number_of_jobs_that_is_none_is_refused(threads: str) -> None:
    said = refused({"MAX_THREADS": "2"}, {"MAX_THREADS": threads})
    shown = threads if len(threads) < 200 else f"{threads[:200]}..."
    assert said.message == f"--max-threads={shown!r} is not a whole number from 1 to 4096"
    assert "Set --max-threads" in said.remedy
    assert refused({"MAX_THREADS": threads}).message.startswith("MAX_THREADS=")


def test_a_driver_version_that_is_not_given_is_the_images_own_and_an_empty_one_is_refused() -> None:
    wish = wishes.make_wish(settings.load({}), image(), "6.1.0-56-amd64")
    assert wish.driver_version == "535.309.01"
    said = refused({"DRIVER_VERSION": ""})
    assert "DRIVER_VERSION=''" in said.message and "535.309.01" in said.remedy and "leave it out" in said.remedy


def test_a_driver_version_that_the_image_does_not_hold_is_refused_with_what_it_holds() -> None:
    with pytest.raises(DriverError, match=r"535.230.02.*535.309.01") as raised:
        wishes.make_wish(settings.load({"DRIVER_VERSION": "535.230.02"}), image(), "6.1.0-56-amd64")
    assert raised.value.code is Code.BAD_SETTING


def test_five_thousand_variables_and_some_that_are_no_text_disturb_nobody() -> None:
    many = {f"SERVICE_{number}_{NOT_TEXT}": NOT_TEXT * 20 for number in range(5000)}
    loaded: Config = settings.load({**many, "http_proxy": NOT_TEXT})
    assert len(loaded.child_environment) == 2


def test_a_child_gets_a_variable_that_is_no_text_byte_by_byte(fake_bin: FakeBin) -> None:
    fake_bin.add("rmmod", '[ "$http_proxy" = "$(printf "caf\\351")" ]')
    Kmod({**fake_bin.environment, "http_proxy": NOT_TEXT}).unload(["nvidia"], 10.0)
    assert fake_bin.calls


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'NVreg_RegistryDwords="a=1\n', "not closed"),
        (b'text="one\ntwo"\n', "not closed"),
        (b"NVreg_A=1\0\n", "control character"),
        (b"NVreg_A=1\x1b[0m\n", "control character"),
        (b"NVreg_A=1 \\\n", "backslash"),
        (b"NVreg_A=caf\xe9\n", "utf-8"),
        (b"=1\n", "not the name of a parameter"),
        (b"NVreg-A;rm=1\n", "not the name of a parameter"),
        (b"x" * (1 << 20), "1048576 bytes"),
    ],
)
def test_a_malformed_file_of_parameters_is_refused_before_anything_is_looked_at(
    paths: Paths, content: bytes, told: str
) -> None:
    make_tree(paths.root, {"drivers": None})
    (paths.user_settings / "nvidia.conf").write_bytes(content)
    with pytest.raises(DriverError, match=told) as raised:
        parameters.user_words(paths, "nvidia")
    assert raised.value.code is Code.BAD_SETTING and "drivers/nvidia.conf" in raised.value.message
    assert len(str(raised.value)) < 600


def test_a_folder_where_the_file_should_be_is_told(paths: Paths) -> None:
    make_tree(paths.root, {"drivers/nvidia.conf": None})
    with pytest.raises(DriverError, match="Is a directory") as raised:
        parameters.user_words(paths, "nvidia")
    assert raised.value.code is Code.BAD_SETTING


@pytest.mark.parametrize(
    "word",
    [
        "NVreg_A=x",
        "NVreg_A=08",
        "NVreg_A=3000000000",
        "NVreg_A=" + "9" * 5000,
        "NVreg_A=",
        "NVreg_U=-1",
        "NVreg_U=1,2",
        "flag=maybe",
    ],
)
def test_a_value_that_the_kernel_would_refuse_is_refused_with_the_type(word: str, log: Log) -> None:
    with pytest.raises(DriverError, match=word.partition("=")[0]) as raised:
        parameters.check("nvidia", [word], TYPES, refuse_unknown=False, log=log)
    assert raised.value.code is Code.BAD_PARAMETER and "/drivers/nvidia.conf" in raised.value.remedy


@pytest.mark.parametrize(
    "word", ["NVreg_A=-1", "NVreg_A=0x7f", "NVreg_A=017", "NVreg_U=4294967295", "flag=Y", "flag", 'text="a b"', "text="]
)
def test_a_value_that_the_kernel_takes_is_taken(word: str, log: Log) -> None:
    parameters.check("nvidia", [word], TYPES, refuse_unknown=True, log=log)


def test_an_unknown_parameter_is_a_warning_or_refused_as_set_and_names_its_neighbours(log: Log) -> None:
    parameters.check("nvidia", ["NVreg_a=1"], TYPES, refuse_unknown=False, log=log)
    assert "no parameter NVreg_a" in log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO
    with pytest.raises(DriverError, match="no parameter NVreg_a") as raised:
        parameters.check("nvidia", ["NVreg_a=1"], TYPES, refuse_unknown=True, log=log)
    assert raised.value.code is Code.BAD_PARAMETER and "NVreg_A" in raised.value.remedy


def test_an_image_for_another_processor_is_refused() -> None:
    survey.check_architecture(image(architecture="amd64"), "x86_64")
    with pytest.raises(DriverError, match="for arm64, the node is x86_64") as raised:
        survey.check_architecture(image(architecture="arm64"), "x86_64")
    assert raised.value.code is Code.WRONG_ARCHITECTURE


def test_modules_for_another_processor_are_refused(made: ModuleSet) -> None:
    module = made.modules["nvidia"].file
    content = bytearray(module.read_bytes())
    content[18:20] = (243).to_bytes(2, "little")  # EM_RISCV of elf.h
    module.write_bytes(content)
    described = replace(made, modules={**made.modules, "nvidia": describe(module)})
    with pytest.raises(DriverError, match=r"nvidia.ko is for another processor") as raised:
        verify(described, meanwhile=lambda: None)
    assert raised.value.code is Code.WRONG_ARCHITECTURE


def test_modules_for_another_kernel_are_refused(made: ModuleSet, tmp_path: Path) -> None:
    other = describe(write_module(made.modules["nvidia"].file, "6.1.0-55-amd64"))
    write_manifest(replace(made, modules={**made.modules, "nvidia": other}))
    with pytest.raises(DriverError, match=r"nvidia was built for kernel 6.1.0-55-amd64") as raised:
        OnDisk(tmp_path).find(WISH)
    assert raised.value.code is Code.WRONG_KERNEL


def full(*words: object, **named: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_in_the_build_is_told_whoever_meets_it_and_nothing_stays(tmp_path: Path) -> None:
    for failure in (
        OSError(errno.ENOSPC, "No space left on device"),
        DriverError(Code.BUILD_FAILED, "nv.c:1: fatal error: error writing to nv.s: No space left on device"),
        DriverError(Code.COMMAND_FAILED, "`cp` failed: cp: error copying: No space left on device"),
    ):
        with pytest.raises(DriverError) as raised, told_if_full(tmp_path), scratch_folder(tmp_path):
            raise failure
        assert raised.value.code is Code.NO_SPACE and "/var/tmp" in raised.value.remedy
    assert not list(tmp_path.iterdir())


def test_built_modules_that_find_no_room_leave_what_was_there_and_no_half(
    made: ModuleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "sets/wanted"
    make_tree(target, {"nvidia.ko": "former"})
    (tmp_path / "log").touch()
    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(DriverError, match=f"modules cannot be stored in {target}") as raised:
        publish(Draft(made, {}, tmp_path / "log"), target)
    assert raised.value.code is Code.NO_SPACE and "150 MB" in raised.value.remedy
    assert [path.name for path in target.parent.iterdir()] == ["wanted"]
    assert (target / "nvidia.ko").read_text() == "former"


def test_another_failure_of_the_build_keeps_its_code(tmp_path: Path) -> None:
    with pytest.raises(DriverError) as raised, told_if_full(tmp_path):
        raise DriverError(Code.BUILD_FAILED, "nv.c:1: error: no member")
    assert raised.value.code is Code.BUILD_FAILED


def test_a_full_disk_in_lib_modules_is_told_with_the_room_it_needs(
    paths: Paths, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(paths.root, {"built/nvidia.ko": "x"})
    file = paths.root / "built/nvidia.ko"
    file = paths.root / "built/nvidia.ko"
    monkeypatch.setattr(moduletree, "_place", full)
    with pytest.raises(DriverError, match="No space left") as raised:
        moduletree.assemble(paths, "6.1.0", {file: sha256(file)}, None, Kmod(fake_bin.environment), Hashes())
    assert raised.value.code is Code.NO_SPACE and "MB" in raised.value.remedy


DEPMOD_IS_FULL = "depmod: ERROR: Could not create index 'modules.dep.bin'. Output is truncated: No space left on device"


@pytest.mark.parametrize(("said", "code"), [(DEPMOD_IS_FULL, Code.NO_SPACE), ("depmod: ERROR: no", Code.LOAD_FAILED)])
def test_an_index_that_a_full_disk_cut_short_does_not_stay(
    paths: Paths, fake_bin: FakeBin, said: str, code: Code
) -> None:
    make_tree(paths.root, {"built/nvidia.ko": "x"})
    file = paths.root / "built/nvidia.ko"
    file = paths.root / "built/nvidia.ko"
    index = paths.modules_tree("6.1.0") / moduletree.INDEX
    fake_bin.add("depmod", f'echo half >{index}; echo "{said}" >&2; exit 1')
    with pytest.raises(DriverError, match=r"depmod for 6\.1\.0 failed") as raised:
        moduletree.assemble(paths, "6.1.0", {file: sha256(file)}, None, Kmod(fake_bin.environment), Hashes())
    assert raised.value.code is code and not index.exists()
    assert ("MB there" in raised.value.remedy) is (code is Code.NO_SPACE)


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, Code.NO_SPACE), (errno.EROFS, Code.NODE_FILE)])
def test_a_file_that_a_step_cannot_write_is_told_by_name_and_is_no_bug(life: Life, number: int, code: Code) -> None:
    file = "/etc/modprobe.d/nvidia.conf"
    life.steps[StepName.LOAD].failures[""] = OSError(number, os.strerror(number), file)
    with pytest.raises(DriverError, match=file) as raised:
        life.start.run()
    assert raised.value.code is code and "load" in raised.value.message and raised.value.remedy
    assert "undo driver-root" in life.told
    assert "trying others" not in life.log and not (life.start.tools.paths.own_run / failures.RECORD).exists()


def test_a_full_run_folder_is_told_by_lock_and_markers(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DriverError, match=r"nvidia-driver\.pid") as raised, pidlock.held(paths.pid_file):
        pass
    assert raised.value.code is Code.NO_SPACE and not paths.pid_file.exists()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DriverError) as raised:
        markers.write_daemons_status(paths.run, ready=True)
    assert raised.value.code is Code.NO_SPACE and not list((paths.run / "validations").iterdir())


def test_a_pid_file_that_is_a_folder_is_told(paths: Paths) -> None:
    make_tree(paths.root, {"run/nvidia/nvidia-driver.pid": None})
    with pytest.raises(DriverError, match="Is a directory") as raised, pidlock.held(paths.pid_file):
        pass
    assert raised.value.code is Code.NODE_FILE


def test_comments_and_tabs_in_a_file_of_parameters_are_taken_as_meant(paths: Paths) -> None:
    make_tree(paths.root, {"drivers/nvidia.conf": "# why\nNVreg_A=1\tNVreg_B=2\n\n  # more\n"})
    words = parameters.user_words(paths, "nvidia")
    assert parameters.split(words) == {"NVreg_A": "1", "NVreg_B": "2"}
