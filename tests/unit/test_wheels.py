"""The wheels of a build context: for each Python and each processor that an image can have."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness import cache, proc, wheels


def test_one_context_has_wheels_for_both_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(argv: Sequence[str | Path], **_: object) -> str:
        ran.append([str(word) for word in argv])
        return ""

    def entry(kind: str, parts: object, make: Callable[[Path], None]) -> Path:
        (tmp_path / kind).mkdir(exist_ok=True)
        make(tmp_path / kind)
        return tmp_path / kind

    monkeypatch.setattr(proc, "run", run)
    monkeypatch.setattr(cache, "entry", entry)
    wheels.collect(tmp_path / "wheels")
    for version in ("3.11", "3.12", "3.13", "3.14"):
        for machine in ("x86_64", "aarch64"):
            wanted = {f"--python-version={version}", f"--platform=manylinux_2_28_{machine}"}
            assert any(wanted <= set(words) for words in ran), wanted
