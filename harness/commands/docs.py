"""`./dev docs`: write anew what is generated in docs/ and completions/."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness import docs


def main(argv: Sequence[str]) -> int:
    """Write what is not current, and print its paths; with --check write nothing, and return 1 if there is any."""
    parser = argparse.ArgumentParser(prog="dev docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something is not current")
    chosen = parser.parse_args(argv)
    docs.find_driverctr()
    stale = [page.path for page in docs.PAGES if not page.is_current()] if chosen.check else docs.write()
    print("".join(f"{path}\n" for path in stale), end="")
    return 1 if chosen.check and stale else 0
