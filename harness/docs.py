"""What is generated in docs/ and completions/, and of what: `./dev docs` writes it, tests/unit/test_docs.py compares.

A page is the text that one function returns; the driver's own tables are its source.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Page:
    """A generated file: its path in the repository, and "module:function" that returns its text."""

    path: str
    make: str

    def text(self) -> str:
        """Return what the file should hold."""
        module, _, function = self.make.partition(":")
        return str(getattr(import_module(module), function)())

    def is_current(self) -> bool:
        """Whether the file holds that."""
        file = REPOSITORY / self.path
        return file.is_file() and file.read_text() == self.text()


PAGES = (
    Page("docs/architecture.md", "harness.pages.architecture:markdown"),
    Page("docs/configuration.md", "harness.pages.configuration:markdown"),
    Page("docs/failures.md", "harness.pages.failures:markdown"),
    Page("docs/logs.md", "harness.pages.logs:markdown"),
    Page("docs/metrics.md", "harness.pages.metrics:markdown"),
    Page("docs/nvidia-driver.8", "harness.pages.manual:page"),
    Page("docs/status.md", "harness.pages.status:markdown"),
    Page("completions/nvidia-driver.bash", "harness.pages.completion:bash"),
    Page("completions/nvidia-driver.zsh", "harness.pages.completion:zsh"),
    Page("completions/nvidia-driver.fish", "harness.pages.completion:fish"),
)


def write() -> list[str]:
    """Write what is not current; returns the paths."""
    stale = [page for page in PAGES if not page.is_current()]
    for page in stale:
        (REPOSITORY / page.path).write_text(page.text())
    return [page.path for page in stale]


def find_driverctr() -> None:
    """Have the checkout's sources importable, which no environment of ours has installed."""
    sys.path.insert(0, str(REPOSITORY / "src"))
