"""Files whole or absent, versions in order, log lines for people and machines, bounded retries."""

import json
import os
import sys
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driverctr import files
from driverctr.conceal import conceal
from driverctr.errors import Code, DriverError
from driverctr.log import Format, Level, Log
from driverctr.paths import Paths
from driverctr.retry import retry
from driverctr.versions import DriverVersion, KernelRelease

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
VERSIONS = st.from_regex(r"[1-9][0-9]{2}\.[0-9]{1,3}(\.[0-9]{1,2})?(-grid)?", fullmatch=True)


@given(VERSIONS, VERSIONS)
def test_any_two_driver_versions_have_one_order_and_keep_their_text(one: str, other: str) -> None:
    first, second = DriverVersion(one), DriverVersion(other)
    assert [first < second, first == second, first > second].count(True) == 1
    assert str(first) == one and first.branch == int(one[:3])


@given(TEXT)
def test_no_text_breaks_a_version_parser(text: str) -> None:
    for parse in (DriverVersion, KernelRelease):
        try:
            parsed = parse(text)
        except DriverError as refused:
            assert repr(text) in refused.message and refused.remedy
        else:
            assert str(parsed) == text and "/" not in text


def test_driver_versions_are_ordered_by_numbers() -> None:
    texts = ["470.223.02", "535.54.03", "535.261.03", "535.309.01", "550.54", "1000.1"]
    assert [version.text for version in sorted(map(DriverVersion, reversed(texts)))] == texts


@pytest.mark.parametrize("text", ["", "6", "../../etc", "6.1/..", "6.1 ", "6.1\n", "v6.1", "6.1\0"])
def test_what_could_lead_out_of_the_module_folder_is_no_kernel_release(text: str) -> None:
    with pytest.raises(DriverError) as refused:
        KernelRelease(text)
    assert refused.value.code is Code.BAD_USAGE


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "new/folder/file"
    files.write_atomic(file, "one", mode=0o640)
    former = file.stat().st_ino
    files.write_atomic(file, b"two")
    assert file.read_text() == "two" and file.stat().st_mode & 0o777 == 0o644 and file.stat().st_ino != former
    assert [path.name for path in Path(file.parent).iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_former_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    files.write_atomic(file, "former")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(file, "new")
    assert file.read_text() == "former" and [path.name for path in Path(tmp_path).iterdir()] == ["file"]


def test_small_files_are_read_forgivingly_and_kernel_files_written_in_place(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9tat\n")
    assert files.read_text(tmp_path / "latin") == "\ufffdtat"
    assert files.read_text(tmp_path) is None and files.read_text(tmp_path / "none") is None
    inode = (tmp_path / "latin").stat().st_ino
    files.write_kernel(tmp_path / "latin", "/x")
    assert (tmp_path / "latin").stat().st_ino == inode
    with pytest.raises(FileNotFoundError):
        files.write_kernel(tmp_path / "none", "x")
    assert files.newest([tmp_path / "none", tmp_path / "latin"]) == tmp_path / "latin"
    assert files.newest([]) is None


@given(TEXT, TEXT)
def test_every_json_line_is_one_line_of_json(message: str, value: str) -> None:
    stream = StringIO()
    Log(Format.JSON, Level.DEBUG, stream).warning(message, code=value)
    (line,) = stream.getvalue().split("\n")[:-1]
    document = json.loads(line)
    assert (document["message"], document["code"], document["level"]) == (conceal(message), conceal(value), "warning")


def test_the_threshold_hides_lesser_lines_and_a_closed_stream_hurts_nobody() -> None:
    stream = StringIO()
    log = Log(Format.TEXT, Level.WARNING, stream)
    for say in (log.debug, log.info, log.warning, log.error):
        say("word", code="c")
    assert [line.split(maxsplit=1)[1] for line in stream.getvalue().splitlines()] == [
        "WARNING word code=c",
        "ERROR   word code=c",
    ]
    Log(Format.TEXT, Level.INFO, stream).info("not from here", code="c")
    assert stream.getvalue().endswith("INFO    not from here\n")
    stream.close()
    log.error("nobody hears")


@pytest.mark.parametrize(("fails", "event", "level"), [(False, "done", "info"), (True, "failed", "warning")])
def test_a_step_tells_its_outcome_and_time(fails: bool, event: str, level: str) -> None:
    stream = StringIO()
    with pytest.raises(KeyError) if fails else nullcontext(), Log(Format.JSON, stream=stream).step("load", "modules"):
        if fails:
            raise KeyError
    first, last = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], last["event"], last["level"]) == ("start", event, level)
    assert last["seconds"] >= 0


def test_retries_are_bounded_and_pauses_grow(log: Log) -> None:
    pauses: list[float] = []
    calls = iter([DriverError(Code.PACKAGES_FAILED, "mirror gone")] * 3)

    def act() -> str:
        for error in calls:
            raise error
        return "had"

    assert retry(act, attempts=4, first_pause=8, pause=pauses.append, log=log) == "had"
    assert all(0.5 <= pause / wanted <= 1.0 for pause, wanted in zip(pauses, (8, 16, 32), strict=True))
    calls = iter([DriverError(Code.PACKAGES_FAILED, f"try {number}") for number in range(9)])
    with pytest.raises(DriverError, match="try 1"):
        retry(act, attempts=2, first_pause=1, pause=pauses.append, log=log)
    assert len(pauses) == 4


def test_every_path_lies_below_the_root(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    names = [name for name, member in vars(Paths).items() if isinstance(member, property)]
    assert len(names) > 10
    assert all(getattr(paths, name).is_relative_to(tmp_path) for name in names)
    assert Paths().driver_root == Path("/run/nvidia/driver") and Paths().termination_log == Path("/dev/termination-log")
    assert Paths().modules_tree("6.1").as_posix() == "/lib/modules/6.1"


def test_a_signal_at_any_moment_of_a_write_leaves_the_former_file_or_the_new_one_whole(tmp_path: Path) -> None:
    """The exception of the handler is raised after each instruction in turn, as a signal's is."""
    target = tmp_path / "status.json"
    moment, left, done = 0, 0, False
    alive: list[BaseException] = []

    def interrupt(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if Path(frame.f_code.co_filename).name not in ("files.py", "contextlib.py"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return interrupt

    while not done:
        moment += 1
        left = moment
        target.write_text("former")
        try:
            sys.settrace(interrupt)
            files.write_atomic(target, "new")
            done = True
        except KeyboardInterrupt as stop:
            alive.append(stop)  # as a stop is while it goes on: what its frames hold is not tidied up
        finally:
            sys.settrace(None)
        assert target.read_text() in ("former", "new")
        assert [path.name for path in tmp_path.iterdir()] == ["status.json"], moment
    assert moment > 20
