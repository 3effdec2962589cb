"""The table of explain.py as a page for people: docs/failures.md."""

from driverctr.errors import Code
from driverctr.explain import EXPLANATIONS


def markdown() -> str:
    """The page docs/failures.md."""
    lines = [
        "# Failures: exit statuses and codes",
        "",
        "Generated from `src/driverctr/explain.py` by `./dev docs`. `driverctr explain CODE` prints one of them.",
        "",
        "| status | code | meaning | remedy | again |",
        "|---|---|---|---|---|",
    ]
    for code in Code:
        row = EXPLANATIONS[code]
        again = "may help" if row.retryable else "no"
        lines.append(f"| {code.exit_status} | `{code.value}` | {row.meaning} | {row.remedy} | {again} |")
    lines += [
        "| 128 + n | | Signal n before the driver was ready; all is undone. A third signal: nothing more is. | | |",
        "",
    ]
    return "\n".join(lines)
