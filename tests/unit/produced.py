"""A plugin of pytest: every code is produced by the program itself in some unit test, in whichever worker."""

import sys
from pathlib import Path
from typing import Any

import pytest

from driverctr import errors
from driverctr.errors import Code, DriverError

EVERY_FILE = frozenset(file.name for file in Path(__file__).parent.glob("test_*.py"))

RETELL = ("explain", "first_cause")
"""What gives an error that it was handed more words, while none is handled."""


class Produced:
    """The codes of all errors that the program makes, and what was run meanwhile.

    An error that a test makes in its place proves nothing, told again by the program as little, and a session of some
    tests only cannot tell.
    """

    def __init__(self) -> None:
        """Listen to every error that is made."""
        self.codes: set[str] = set()
        self.files: set[str] = set()
        self.left_out: set[str] = set()
        self.missing: tuple[str, ...] = ()
        package, init = str(Path(errors.__file__).parent), DriverError.__init__

        def noted(error: DriverError, code: Code, message: str, remedy: str = "") -> None:
            maker, handled = sys._getframe(1).f_code, sys.exc_info()[1]
            told_again = maker.co_name in RETELL or (isinstance(handled, DriverError) and handled.code is code)
            if maker.co_filename.startswith(package) and not told_again:
                self.codes.add(code.value)
            init(error, code, message, remedy)

        setattr(DriverError, "__init__", noted)  # noqa: B010  # for as long as the session lasts; mypy forbids the other

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which files are run."""
        self.files |= {item.path.name for item in session.items}

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Note which tests are not."""
        self.left_out |= {item.name for item in items}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of xdist has ended: what it met is ours too."""
        for name, met in getattr(node, "workeroutput", {}).get("produced", {}).items():
            getattr(self, name).update(met)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Judge, or as a worker tell who judges."""
        if hasattr(session.config, "workeroutput"):
            met = {"codes": self.codes, "files": self.files, "left_out": self.left_out}
            session.config.workeroutput["produced"] = {name: sorted(found) for name, found in met.items()}
        elif self.files >= EVERY_FILE and not self.left_out:
            self.missing = tuple(code.value for code in Code if code.value not in self.codes)
            if self.missing and exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Name what nobody produced."""
        if self.missing:
            terminalreporter.write_line(f"FAILED: no unit test makes the program raise {', '.join(self.missing)}")
