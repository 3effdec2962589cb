"""What `driverctr doctor` shows: every check that init makes before it begins, for people and for programs."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from driverctr.errors import DriverError
from driverctr.explain import remedy_for
from driverctr.plan import Plan
from driverctr.preflight import Check, Result
from driverctr.records import asdict, replace

SCHEMA = 1

FIELDS: Mapping[str, str] = {
    "schema": "number of this form; it grows when a field goes or means something else, not when one is added",
    "wanted": "driver version, module type and kernel release that the checks are for",
    "exit_status": "what `doctor` ends with, and `init` would: that of the first refusal, 0 where there is none",
    "checks": "every check, in the order in which a refusal counts",
}
"""Of the document."""

FIELDS_OF_A_CHECK: Mapping[str, str] = {
    "name": "of the check, which stays the same",
    "result": "`ok`, `refused`, or `unknown`: what only the network, the compiler or a load can tell",
    "evidence": "what was found, in a sentence",
    "code": "of the failure that `init` would end with (see `driverctr explain`), null where it is not refused",
    "remedy": "what to do about a refusal, else empty",
    "warnings": "what is wrong and keeps nothing from being done",
}

LEFT = 25
"""Columns before the evidence: the result and the check's name."""

NARROWEST = 60
"""Columns of the narrowest terminal that lines are broken for."""


def with_settings(plan: Plan, refused: Iterable[DriverError]) -> Plan:
    """The same with the check that comes before all others: of the settings, some of which may not have been taken."""
    errors = list(refused)
    check = Check("settings", Result.OK, "those given are valid")
    if errors:
        evidence = "; ".join(error.message for error in errors)
        remedy = "; ".join(remedy_for(error) for error in errors)
        check = Check("settings", Result.REFUSED, evidence, errors[0].code, remedy)
    return replace(plan, checks=(check, *plan.checks))


def collect(plan: Plan) -> dict[str, Any]:
    """The checks that were made for a plan."""
    checks = [asdict(check) for check in plan.checks]
    return {"schema": SCHEMA, "wanted": plan.wanted, "exit_status": exit_status(plan), "checks": checks}


def exit_status(plan: Plan) -> int:
    """That of the first refusal, or 0."""
    return plan.blockers[0].code.exit_status if plan.blockers else 0


def describe(plan: Plan, width: int | None = None) -> str:
    """One check a paragraph, with what to do where it is refused, and at the end what that means for a start.

    `width` is the terminal's, None where lines are not to be broken: for `grep`, and logs.
    """
    lines = [f"For: {plan.wanted}", ""]
    for check in plan.checks:
        code = f"{check.code.value}: " if check.code else ""
        lines += _hang(f"{check.result.value:8} {check.name:15} ", f"{code}{check.evidence}", width)
        for warning in check.warnings:
            lines += _hang(" " * LEFT + "warning: ", warning, width)
        if check.remedy:
            lines += _hang(" " * LEFT + "remedy: ", check.remedy, width)
    return "\n".join([*lines, "", *_hang("", _conclude(plan), width)]) + "\n"


def _conclude(plan: Plan) -> str:
    refused = _named(plan, Result.REFUSED)
    unknown = _named(plan, Result.UNKNOWN)
    open_ones = f" Not known from here: {', '.join(unknown)}." if unknown else ""
    if not refused:
        return f"Nothing is in the way of a start.{open_ones}"
    first = plan.blockers[0].code
    ends = f"`init` would end with exit status {exit_status(plan)} ({first.value})"
    return f"Refused: {', '.join(refused)}; {ends}.{open_ones}"


def _named(plan: Plan, result: Result) -> list[str]:
    return [check.name for check in plan.checks if check.result is result]


def _hang(head: str, text: str, width: int | None) -> list[str]:
    """A text behind its head, its further lines below its first word."""
    if width is None:
        return [f"{head}{text}"]
    return textwrap.wrap(
        text,
        max(width, NARROWEST),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
