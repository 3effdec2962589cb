"""How far a build is: at most a line a second, on a terminal a live bar with log lines above it."""

import json
import time
from io import StringIO

import pytest

from driverctr import progress
from driverctr.log import Format, Log
from driverctr.modules.built import Built
from driverctr.progress import Count, Screen, counted, screen
from tests.unit import terminals
from tests.unit.conftest import FakeBin
from tests.unit.test_built import NAMES, WISH
from tests.unit.test_built import built as built


class Clock:
    """Moves when it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_left_count_from_the_first_object_on() -> None:
    clock = Clock()
    count = Count("objects compiled", 40, clock=clock)
    said = [str(count)]
    for _ in range(11):
        clock.now += 0.5
        count.add()
        said.append(str(count))
    assert said[0] == "0 of 40 (0 %) objects compiled"
    assert said[1] == "1 of 40 (2 %) objects compiled"
    assert said[11] == "11 of 40 (27 %) objects compiled, 2.0/s, 14 s left"
    assert count.fields == {"done": 11, "total": 40, "rate": 2.0, "left": 14.5}


def test_a_total_that_is_not_known_or_not_true_is_left_out() -> None:
    count = Count("objects compiled", 0)
    count.add()
    assert str(count) == "1 objects compiled" and count.fields == {"done": 1}
    wrong = Count("objects compiled", 1)
    for _ in range(3):
        wrong.add()
    assert str(wrong).startswith("3 objects compiled") and "left" not in wrong.fields


@pytest.mark.parametrize("form", list(Format))
def test_there_is_at_most_one_line_a_second(form: Format) -> None:
    clock = Clock()
    log = Log(form, stream=StringIO())
    with counted(log, "build", "objects compiled", 1000, clock) as one_more:
        for _ in range(1000):
            clock.now += 0.0125
            one_more()
    assert isinstance(log.stream, StringIO)
    lines = log.stream.getvalue().splitlines()
    assert len(lines) == 12
    if form is Format.TEXT:
        assert lines[0].endswith("build: 80 of 1000 (8 %) objects compiled, 80.0/s, 12 s left")
    else:
        assert json.loads(lines[0]).items() >= {"done": 80, "total": 1000, "rate": 80.0, "left": 11.5}.items()


def test_a_bar_stays_below_the_lines_of_the_log_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with terminals.opened() as terminal:
        log = Log(stream=screen(terminal.tty))
        with counted(log, "build", "objects compiled", 4) as one_more:
            one_more()
            log.info("first [b]line[/b]")
            one_more()
            log.warning("second line, code", code="no-space")
            time.sleep(0.05)
            one_more()
            time.sleep(2 / progress.REDRAWN)
            first, second, bar = terminal.read()
            assert first.endswith("INFO    first [b]line[/b]") and second.endswith("second line, code code=no-space")
            assert bar.startswith("build ━") and "3 of 4 (75 %) objects compiled" in bar and "/s" in bar
            assert bar.endswith("s left")
        log.info("after")
        assert [line[13:] for line in terminal.read()] == [
            "INFO    first [b]line[/b]",
            "WARNING second line, code code=no-space",
            "INFO    after",
        ]
        assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor is shown again"


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    with terminals.opened() as terminal:
        with counted(Log(stream=screen(terminal.tty)), "build", "objects compiled", 4) as one_more:
            one_more()
        assert "\x1b" not in terminal.raw and terminal.read()[0].endswith("build: 1 of 4 (25 %) objects compiled")


def test_json_on_a_terminal_stays_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    with terminals.opened(400) as terminal:
        with counted(Log(Format.JSON, stream=screen(terminal.tty)), "build", "objects", 4) as one_more:
            one_more()
        (line,) = terminal.read()
        assert json.loads(line)["done"] == 1


def test_a_terminal_that_is_gone_fails_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")

    class Gone(StringIO):
        """Takes nothing."""

        def isatty(self) -> bool:
            return True

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    with counted(Log(stream=Screen(Gone())), "build", "objects compiled", 4) as one_more:
        one_more()


def test_a_stream_that_is_no_terminal_stays_what_it_is() -> None:
    stream = StringIO()
    assert screen(stream) is stream


def test_a_whole_build_on_a_terminal(built: Built, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    source = built.root / "usr/src/nvidia"
    (source / "count-lines.mk").write_text("")
    compile_five = (
        f"for n in 1 2 3 4 5; do echo '  CC [M]  x.o'; /bin/sleep 0.2; done; /bin/cp {built.root.parent}/made/*.ko ."
    )
    fake_bin.add("make", f"case \"$*\" in *count-lines.mk*) echo 'objects:4 modules:1';; *) {compile_five};; esac")
    with terminals.opened(160) as terminal:
        log = Log(stream=screen(terminal.tty))
        from dataclasses import replace

        found = replace(built, log=log, runner=replace(built.runner, log=log)).find(WISH)
        assert set(found.modules) >= set(NAMES)
        lines = terminal.read()
    assert "of 5 (" in terminal.raw and "objects compiled" in terminal.raw and "━" in terminal.raw
    assert "build: done in" in lines[-1] and not [line for line in lines if "━" in line or "objects compiled" in line]
