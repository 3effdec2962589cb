"""The manual page, of the parser by argparse-manpage, and of the tables of settings and codes."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterable

from argparse_manpage.manpage import Manpage

from driverctr.errors import Code
from driverctr.explain import EXPLANATIONS
from driverctr.parser import make_parser
from driverctr.settings import SETTINGS
from harness.docs import REPOSITORY
from harness.pages.completion import parsers

DESCRIPTION = """\
The NVIDIA driver container: makes the GPU driver work on the host that it runs on, keeps it working, and takes it away
on a signal. driverctr and nvidia\\-driver are two names of one program; it runs in the container, as its entrypoint or
by exec.
"""

FILES = {
    "/drivers/*.conf": "parameters of the modules, such as nvidia.conf",
    "/run/nvidia/driver": "the driver root: libraries, programs and firmware, for others",
    "/run/nvidia/driverctr/status.json": "what status reads",
    "/run/nvidia/validations/.driver-ctr-ready": "there while the driver is ready",
    "/run/nvidia/nvidia-driver.pid": "the lock: one driver container a node",
    "/var/lib/driverctr/store": "modules built before",
}


class Wide(argparse.HelpFormatter):
    """As wide as any usage: what is written does not depend on the terminal of whoever writes it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=10_000)


def page() -> str:
    """The page, in man(7)."""
    parser = make_parser()
    for one in parsers(parser):
        one.formatter_class = Wide
        # Beside a verb's help it would be told twice, beside our own description too.
        one.description = None
        for group in one._action_groups:
            if any(isinstance(action, argparse._SubParsersAction) for action in group._group_actions):
                group.title = "verbs"
    # A date would change by itself.
    data = {"project_name": "driverctr", "version": _version(), "manual_section": 8, "date": " "}
    manual = Manpage(parser, data, format="single-commands-section")
    manual.manual = "System administration"
    manual.description = "the NVIDIA driver container"
    manual.add_section("description", "=", DESCRIPTION)
    manual.add_section("environment", "=", _terms((row.variable, row.help) for row in SETTINGS))
    manual.add_section("files", "=", _terms(FILES.items()))
    manual.add_section(
        "exit status",
        "=",
        _terms(
            [
                ("0", "the driver was ready, and the stop was clean; of other verbs: done"),
                *((f"{code.exit_status} ({code.value})", EXPLANATIONS[code].meaning) for code in Code),
                ("128 + n", "signal n before the driver was ready"),
            ]
        ),
    )
    return str(manual)


def _terms(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms and what they are."""
    return "\n".join(f".TP\n.B {_escaped(term)}\n{_escaped(text)}" for term, text in pairs)


def _escaped(text: str) -> str:
    """Text as man(7) has it: backslash and hyphen mean more there, and a dot or a quotation mark that begins it."""
    text = text.replace("\\", "\\\\").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _version() -> str:
    return str(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"])
