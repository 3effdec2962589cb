"""`driverctr plan` and `driverctr doctor`, for people and for programs."""

from dataclasses import asdict
from typing import Any

from driverctr.plan import Plan
from driverctr.preflight import DISTRIBUTION
from driverctr.truth import is_ready, look

__all__ = ["collect_checks", "format_checks", "format_plan", "is_ready", "look"]


def collect_checks(plan: Plan) -> dict[str, Any]:
    """The checks that were made for a plan."""
    return {"schema": 1, "wanted": plan.wanted, "checks": [asdict(check) for check in plan.checks]}


def format_checks(plan: Plan) -> str:
    """One check a line, with what to do where it is refused."""
    lines = [f"For: {plan.wanted}", ""]
    for check in plan.checks:
        code = f"{check.code.value}: " if check.code else ""
        lines.append(f"{check.result.value:8} {check.name:15} {code}{check.evidence}")
        lines += [f"{'':24} warning: {warning}" for warning in check.warnings]
        if check.remedy:
            lines.append(f"{'':24} remedy: {check.remedy}")
    return "\n".join(lines) + "\n"


def format_plan(plan: Plan) -> str:
    """What is wanted, what will be done in order, what was set aside and why, what blocks."""
    where = next((check.evidence for check in plan.checks if check.name == DISTRIBUTION), "")
    lines = [f"Wanted: {plan.wanted}", *([f"Where:  {where}"] if where else []), ""]
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"{number:3}. {step.name.value:13} {step.what}")
        lines += [f"{'':19}set aside: {other.alternative}, since {other.reason}" for other in step.set_aside]
        if step.unknown:
            lines.append(f"{'':19}unknown until then: {step.unknown}")
    lines += [f"\nWarning: {warning}" for warning in plan.warnings]
    if plan.pending:
        lines += ["", f"Degraded until then: {plan.pending}"]
    for blocker in plan.blockers:
        lines += ["", f"Blocked ({blocker.code.value}): {blocker.message}"]
        if blocker.remedy:
            lines.append(f"  {blocker.remedy}")
    return "\n".join(lines) + "\n"
