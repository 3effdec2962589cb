"""`python -m harness scenario NAME`: one guest script of tests/vm, on the stand-in driver.

The container runs the newest image root at hand with the checkout's sources laid over it, so that a change is tried
without building an image; tests/vm/test_scenarios.py runs the built image itself.
"""

from __future__ import annotations

import argparse
import sys

from harness import kernels, standin
from harness.vm import Outcome


def main(argv: list[str]) -> int:
    """Run the scenario; returns 0 if it passed."""
    parser = argparse.ArgumentParser(prog="dev scenario", description=__doc__)
    parser.add_argument("name", help="of tests/vm/guest/scenario_NAME.sh")
    parser.add_argument("--cases", default="", metavar="REGEX", help="only the cases whose title matches")
    parser.add_argument("--runtime", default="docker", choices=("docker", "podman-crun", "podman-runc"))
    parser.add_argument("--kernel", default=kernels.DEFAULT, help="release or its beginning (6.1, 6.12)")
    chosen = parser.parse_args(argv)
    spec = standin.scenario_spec(standin.newest_root(), chosen.kernel, sources=True)
    result = standin.run_scenario(chosen.name, spec, chosen.runtime, chosen.cases)
    if result.outcome is Outcome.PASSED:
        return 0
    print(result.report(), file=sys.stderr)
    return 1
