"""The command line as others call it: exit statuses, no tracebacks, and a probe that costs nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import driverctr
from driverctr import config as settings
from driverctr.errors import Code, DriverError
from driverctr.explain import EXPLANATIONS
from driverctr.peermem import probe
from tests.unit.conftest import make_tree

SOURCE = Path(driverctr.__file__).parents[1]
PYTHON = Path(sys.executable).name


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from driverctr.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.allow_process(PYTHON)
@pytest.mark.parametrize(
    "words", [("frobnicate",), ("init", "--frobnicate"), (), ("build", "--kern", "6.1"), ("init", "extra")]
)
def test_unknown_verbs_and_flags_are_refused_without_a_traceback(words: tuple[str, ...]) -> None:
    done = call(*words)
    assert done.returncode == Code.BAD_USAGE.exit_status
    assert "Traceback" not in done.stderr and "usage:" in done.stderr


@pytest.mark.allow_process(PYTHON)
def test_a_wrong_setting_has_its_own_exit_status_and_json_is_logged_on_request() -> None:
    assert call("plan", VERIFY_DEPTH="deep").returncode == Code.BAD_SETTING.exit_status
    done = call("build", "--kernel", "../etc", LOG_FORMAT="json")
    assert done.returncode != 0
    line = json.loads(done.stderr.splitlines()[-1])
    assert line["level"] == "error" and line["code"] and "Traceback" not in done.stderr


@pytest.mark.allow_process(PYTHON)
@pytest.mark.parametrize(("status", "expected"), [("0", 0), ("None", 0), ("7", 7), ("'words'", 1)])
def test_leaving_at_once_loses_neither_words_nor_status(status: str, expected: int) -> None:
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from driverctr.cli import leave; "
    code += f"print('said'); leave({status})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (expected, "said\n")
    assert done.stderr == ("words\n" if status == "'words'" else "")


def words_of(code: str) -> list[str]:
    """What a bare interpreter prints that has our sources on its path."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {code}"
    return subprocess.run(
        [sys.executable, "-BIS", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.allow_process(PYTHON)
def test_a_start_imports_nothing_that_most_starts_do_not_need() -> None:
    said = words_of(
        "from driverctr.deferred import defer_of_others; defer_of_others(); "
        "import driverctr.verbs, driverctr.lifecycle; print(*sys.modules)"
    )
    seldom = {"_hashlib", "ast", "datetime", "dis", "filecmp", "graphlib", "hashlib", "logging", "psutil", "pyudev"}
    seldom |= {"random", "requests", "rich", "selectors", "sh", "shlex", "shutil", "socket", "subprocess", "tempfile"}
    assert "driverctr.lifecycle" in said and not seldom & set(said)


@pytest.mark.allow_process(PYTHON)
def test_what_is_deferred_of_others_is_there_before_a_signal_could_be_lost_in_it() -> None:
    said = words_of(
        "import driverctr.deferred as d; d.defer_of_others(); "
        "import driverctr.verbs, driverctr.lifecycle; lazy = lambda: type(sys.modules['inspect']).__name__; "
        "before = lazy(); d.load_of_others(); print(before, lazy())"
    )
    assert said == ["_LazyModule", "module"]


@pytest.mark.allow_process(PYTHON)
def test_the_probe_imports_almost_nothing() -> None:
    said = words_of(
        "before = set(sys.modules); from driverctr.cli import main; "
        "main(['probe_nvidia_peermem']); print(*sorted(set(sys.modules) - before))"
    )
    of_os = {"os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc"}
    assert set(said) <= {"driverctr", "driverctr.cli", "driverctr.peermem", *of_os}


@pytest.mark.parametrize(
    ("files", "status"),
    [({}, 0), ({"mlx5_core/x": ""}, 1), ({"mlx5_core/x": "", "nvidia_peermem/refcnt": "0"}, 0)],
)
def test_the_probe_fails_only_where_mofed_is_and_peermem_is_not(
    tmp_path: Path, files: dict[str, str], status: int
) -> None:
    make_tree(tmp_path, {f"sys/module/{name}": text for name, text in files.items()})
    assert probe(str(tmp_path)) == status


def test_every_code_has_an_exit_status_of_its_own() -> None:
    statuses = [code.exit_status for code in Code]
    assert len(set(statuses)) == len(statuses) and all(1 < status <= 70 for status in statuses)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DRIVER_VERSION", "latest"),
        ("KERNEL_MODULE_TYPE", "opne"),
        ("DRIVER_TYPE", "vgpu"),
        ("VERIFY_DEPTH", "deep"),
        ("VERIFY_TIMEOUT", "-1"),
        ("RETRY_MAX_PAUSE", "0.5"),
        ("MAX_THREADS", "0"),
        ("MAX_THREADS", "x"),
        ("MAX_THREADS", "100000"),
        ("MODULES_DIR", "relative"),
        ("GDS_ENABLED", "maybe"),
        ("LOG_FORMAT", "xml\udce9"),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_is_valid(variable: str, value: str) -> None:
    with pytest.raises(DriverError) as refused:
        settings.load({variable: value})
    assert refused.value.code is Code.BAD_SETTING
    assert variable in refused.value.message and repr(value) in refused.value.message and refused.value.remedy


def test_unknown_variables_are_tolerated_and_defaults_are_valid() -> None:
    many = {f"UNKNOWN_{number}": "x" for number in range(5000)}
    config = settings.load({**many, "http_proxy": "http://proxy"}, {"MAX_THREADS": "3"})
    assert config.max_threads == 3
    assert config.child_environment["http_proxy"] == "http://proxy"
    assert "UNKNOWN_1" not in config.child_environment


def test_every_code_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Code)


@pytest.mark.allow_process(PYTHON)
@pytest.mark.parametrize(("asked", "again"), [(Code.STUCK, "alone does not help"), (Code.NO_SPACE, "may help")])
def test_a_code_is_explained_with_remedy_and_whether_trying_again_helps(asked: Code, again: str) -> None:
    said = call("explain", asked.value).stdout
    row = EXPLANATIONS[asked]
    assert row.meaning in said and row.remedy in said and again in said
