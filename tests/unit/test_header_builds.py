"""Two kernels of one release with different versions: headers of the other build give way to the next place."""

from dataclasses import replace
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError
from driverctr.headers import Headers, HeaderSearch, Origin
from driverctr.log import Log
from driverctr.run import Runner
from tests.unit.test_headers import RELEASE, Tool, asking, node, scratch, split_tree

__all__ = ["node", "scratch"]


def test_a_refused_build_is_told_and_the_next_place_is_asked(
    node: Path, scratch: Path, runner: Runner, log: Log
) -> None:
    def accept(found: Headers) -> str:
        if found.origin is Origin.HOST:
            raise DriverError(Code.HEADERS_MISSING, f"the headers from {found.place} are of another build")
        return ""

    split_tree(node)
    tool = Tool("fetch")
    search = HeaderSearch(runner, log, scratch, asking(tool, node), node, accept)
    assert search.find(RELEASE).origin is Origin.PACKAGES and tool.calls == ["from_folder", "fetch"]
    with pytest.raises(DriverError, match=r"our own root: .* are of another build; .*no package by fetch") as refused:
        replace(search, packages=asking(Tool(), node)).find(RELEASE)
    assert refused.value.code is Code.HEADERS_MISSING


def test_headers_in_doubt_serve_only_where_no_later_place_has_better(
    node: Path, scratch: Path, runner: Runner, log: Log
) -> None:
    split_tree(node)
    tool = Tool("fetch")
    search = HeaderSearch(
        runner, log, scratch, asking(tool, node), node, lambda found: "old" if found.origin is Origin.HOST else ""
    )
    assert search.find(RELEASE).origin is Origin.PACKAGES
    assert replace(search, packages=asking(Tool(), node)).find(RELEASE).origin is Origin.HOST
    assert replace(search, packages=None, accept=lambda found: "").find(RELEASE).origin is Origin.HOST
