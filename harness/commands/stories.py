"""`python -m harness stories`: have the stories in docs/ happen in a virtual machine, and record them.

Blocks of the pages are what the guest scripts print between `story NAME` and `told`; lines that are too long for a page
are wrapped, nothing else is changed.
"""

from __future__ import annotations

import argparse
import re
import sys

from harness import standin
from harness.docs import REPOSITORY
from harness.pages import blocks
from harness.vm import Outcome

PAGES = tuple(REPOSITORY / "docs" / name for name in ("troubleshooting.md", "life.md"))
SCENARIOS = (("stories", ""), ("rollback", "with it the former version returns whole"))
"""Names of tests/vm/guest/scenario_NAME.sh, and the cases of each."""
STORY = re.compile(r"^@@@ (?P<name>\S+)\r?\n(?P<text>.*?)^@@@\r?$", re.MULTILINE | re.DOTALL)


def main(argv: list[str]) -> int:
    """Write what was told into the pages, of scenarios that passed only; returns 0 if all did."""
    parser = argparse.ArgumentParser(prog="dev stories", description=__doc__)
    parser.add_argument("--cases", default="", metavar="REGEX", help="only the stories of cases whose title matches")
    chosen = parser.parse_args(argv)
    spec = standin.scenario_spec(standin.newest_root(), sources=True)
    status = 0
    for name, cases in SCENARIOS:
        if not any(re.search(cases, title) and re.search(chosen.cases, title) for title in titles(name)):
            continue
        result = standin.run_scenario(name, spec, cases=chosen.cases or cases)
        if result.outcome is Outcome.PASSED:
            for page in PAGES:
                page.write_text(blocks.fill(page.read_text(), told(result.output)))
        else:
            print(result.report(), file=sys.stderr)
            status = 1
    return status


def titles(name: str) -> list[str]:
    """The titles of a scenario's cases."""
    return re.findall(r'^if scenario "(.*)"; then$', (standin.GUEST / f"scenario_{name}.sh").read_text(), re.MULTILINE)


def told(output: str) -> dict[str, str]:
    """The stories in a guest's output, by name, as blocks of a page."""
    return {found["name"]: blocks.quoted(found["text"].splitlines()) for found in STORY.finditer(output)}
