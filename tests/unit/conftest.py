"""Unit tests run no real program unless they say which, and work on trees and executables of their own."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from driverctr import conceal
from driverctr.log import Level, Log
from driverctr.paths import Paths
from driverctr.run import Runner
from tests.unit.produced import Produced


class RealProcessError(BaseException):
    """A unit test tried to run a real program; not an Exception, so that no handler hides it."""


@dataclass
class Guard:
    """What may be executed now; None while no unit test runs (pytest and its plugins do as they like)."""

    below: Path | None = None
    names: frozenset[str] = frozenset()

    def check(self, program: str | bytes, environment: Mapping[str, str] | None) -> None:
        """Raise unless the program is a test's own or was named by the marker."""
        if self.below is None:
            return
        search = (environment or os.environ).get("PATH", "")
        found = Path(shutil.which(os.fsdecode(program), path=search) or os.fsdecode(program))
        if not found.is_relative_to(self.below) and found.name not in self.names and found.exists():
            raise RealProcessError(f"{found} must not run in a unit test; mark the test allow_process({found.name!r})")


GUARD = Guard()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        GUARD.check(arguments[0], arguments[3])
    elif event == "os.exec":
        GUARD.check(arguments[0], arguments[2])


sys.addaudithook(_audit)


def pytest_configure(config: pytest.Config) -> None:
    """A session of all unit tests fails where they leave a code unproduced."""
    config.pluginmanager.register(Produced())


@pytest.fixture(autouse=True)
def no_real_process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Forbid real programs, except those in `@pytest.mark.allow_process("flock")`."""
    marker = request.node.get_closest_marker("allow_process")
    GUARD.below, GUARD.names = tmp_path.resolve(), frozenset(marker.args if marker else ())
    yield
    GUARD.below = None


@pytest.fixture(autouse=True)
def no_known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test gives as a secret is none in the next."""
    monkeypatch.setattr(conceal, "KNOWN", conceal.Known())


class FakeBin:
    """A folder of fake executables that log how they were called."""

    def __init__(self, folder: Path) -> None:
        """Begin with an empty folder."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder.parent / "calls"

    def add(self, name: str, script: str = "") -> Path:
        """An executable that logs its words and then runs a POSIX shell script."""
        file = self.folder / name
        file.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name}${{*:+ $*}}" >> {self.log}\n{script}\n')
        file.chmod(0o755)
        return file

    @property
    def calls(self) -> list[str]:
        """Every call so far, as one line of words each."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        """A PATH with nothing else on it."""
        return {"PATH": str(self.folder)}


@pytest.fixture
def fake_bin(tmp_path: Path) -> FakeBin:
    """Fake executables on a PATH of their own."""
    return FakeBin(tmp_path / "bin")


@pytest.fixture
def log() -> Log:
    """A log that keeps its lines in `log.stream`."""
    return Log(threshold=Level.DEBUG, stream=StringIO())


@pytest.fixture
def runner(fake_bin: FakeBin, log: Log) -> Runner:
    """A runner that finds the fake executables only."""
    return Runner(fake_bin.environment, log)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A node of one's own."""
    root = tmp_path / "node"
    root.mkdir()
    return Paths(root)


def make_tree(root: Path, files: Mapping[str, str | None]) -> None:
    """Write files below a root; a value of None makes a folder, one that starts with "-> " a link."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_text(content)
