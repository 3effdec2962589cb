"""The words of the command line: verbs and flags, and nothing that one verb alone needs: help is asked for often.

Where a verb acts is told by name (`act`), and imported once it is chosen (verbs.act_of).
"""

from __future__ import annotations

import argparse
import sys

from driverctr.errors import Code, DriverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

LONGEST = 86400.0
"""Seconds that can be waited for at most: a day."""


class Parser(argparse.ArgumentParser):
    """A wrong word ends where every other error does."""

    def error(self, message: str) -> NoReturn:
        """Raise DriverError (bad-usage)."""
        self.print_usage(sys.stderr)
        raise DriverError(Code.BAD_USAGE, message, f"See `{self.prog} --help`")


def path(text: str) -> Path:
    """A path; help needs none, and does not pay for the import."""
    from pathlib import Path

    return Path(text)


def seconds(text: str) -> float:
    """Seconds to wait for; raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and {LONGEST:.0f}")
    return number


def make_parser() -> argparse.ArgumentParser:
    """The verbs and flags of the reference, and ours."""
    parser = Parser(prog="nvidia-driver", description="NVIDIA driver container", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, act: str, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        verb.set_defaults(act=act)
        return verb

    for name, text in (
        ("init", "bring the driver up (building modules if need be), keep it, take it down on a signal"),
        ("load", "the same with modules on disk only"),
        ("build", "build the modules for a kernel, and do nothing else"),
    ):
        verb = add(name, "verbs:build" if name == "build" else "verbs:init", text)
        verb.add_argument("-a", "--accept-license", action="store_true", help="accepted for compatibility; no effect")
        verb.add_argument("-m", "--max-threads", metavar="N", help="most jobs of a build")
        if name == "build":
            verb.add_argument("-k", "--kernel", metavar="RELEASE", help="default: the running kernel's")
            verb.add_argument("-o", "--output", metavar="DIR", type=path, help="default: MODULES_DIR")
            verb.add_argument("-t", "--tag", metavar="TAG", help="accepted for compatibility; no effect")
            verb.add_argument(
                "--modules",
                metavar="DIR",
                type=path,
                help="compile nothing: take these, which were made (and signed) elsewhere",
            )
    verb = add("update", "verbs:update", "have the modules for a kernel before it boots, beside a driver that serves")
    verb.add_argument(
        "-k",
        "--kernel",
        metavar="RELEASE",
        default="latest",
        help="default: the newest one installed on the host that has not run (latest)",
    )
    verb.add_argument("-m", "--max-threads", metavar="N", help="most jobs of a build; default: half of the processors")
    verb.add_argument("-s", "--sign", metavar="KEYID", help="refused: modules are not signed yet")
    verb.add_argument("-t", "--tag", metavar="TAG", help="accepted for compatibility; no effect")
    verb.add_argument(
        "--like-running",
        action="store_true",
        help="with the settings of the driver container that runs, as the hook does",
    )
    for name, act, text in (
        ("plan", "planview:show", "print what is true, what init would do about it, and how long that takes"),
        ("who", "whoverb:show", "print who uses the driver, and what to do about each"),
    ):
        add(name, act, text).add_argument("--json", action="store_true", help="for programs")
    asked = add("status", "statusverb:show", "print what is so; exit status 0 if the driver is ready")
    asked.add_argument("--json", action="store_true", help="for programs; docs/status.md describes it")
    asked.add_argument("--wait", choices=("ready",), help="print it once the driver is ready, or the time is over")
    asked.add_argument("--timeout", metavar="S", type=seconds, help="seconds to wait at most; default: 300")
    asked = add("doctor", "doctorverb:run", "print every check that init makes before it begins")
    how = asked.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument(
        "--bundle",
        metavar="FILE",
        help="write a .tar.gz for a bug report: settings without secrets, checks, plan, status, history, logs, "
        "modules, PCI and packages; - for standard output",
    )
    told = add("history", "historyverb:show", "print what starts took and how they ended")
    told.add_argument("--json", action="store_true", help="for programs")
    told.add_argument("--all", action="store_true", help="every start on record; default: the last 20")
    asked = add("explain", "verbs:explain", "print what an exit status or code means and what to do about it")
    codes = [word for code in Code for word in (code.value, str(code.exit_status))]
    asked.add_argument("code", nargs="?", choices=codes, metavar="CODE", help="a code or an exit status; default: all")
    add("unload", "verbs:unload", "take away what a driver container that is no more has left")
    stored = verbs.add_parser("store", help="list, verify, prune, export, import and push modules built before")
    add_store_verbs(stored)
    add(
        "reload_nvidia_peermem",
        "verbs:reload_peermem",
        "load nvidia-peermem once MOFED's and our driver are ready, and stay",
    )
    add("probe_nvidia_peermem", "verbs:probe_peermem", "exit 1 if nvidia-peermem should be loaded and is not")
    return parser


def add_store_verbs(parser: argparse.ArgumentParser) -> None:
    """Add the verbs below `store`."""
    verbs = parser.add_subparsers(dest="store_verb", required=True, metavar="VERB")

    def add(name: str, act: str, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        verb.set_defaults(act=act)
        return verb

    add("list", "storeverbs:show", "print the entries, the last used first").add_argument(
        "--json", action="store_true", help="for programs"
    )
    add(
        "verify",
        "storeverbs:verify",
        "compare every file with its manifest; what is damaged is set aside, and built anew when needed",
    )
    why = add(
        "why",
        "storeverbs:explain",
        "print whether the modules wanted here are in the store, or what keeps the nearest from it",
    )
    prune = add(
        "prune",
        "storeverbs:prune_to",
        "give up damaged entries set aside, and what was used least recently; what runs, ran last or is to run stays",
    )
    prune.add_argument("--max-size", metavar="SIZE", help="such as 2G; default: STORE_MAX_SIZE")
    export = add(
        "export",
        "storeverbs:export_to",
        "write entries to one file, for nodes that reach neither packages nor a server",
    )
    export.add_argument("digests", nargs="*", metavar="DIGEST", help="as `store list` shows them; default: all")
    export.add_argument("file", type=path, metavar="FILE")
    for verb in (why, export):
        verb.add_argument("-k", "--kernel", metavar="RELEASE", help="of this kernel release")
    taken = add(
        "import",
        "storeverbs:import_from",
        "take the entries of a file into the store. They are code for the kernel, checked against damage only: whoever "
        "imports a file vouches for where it comes from",
    )
    taken.add_argument("file", type=path, metavar="FILE")
    pushed = add("push", "storeverbs:push", "sign entries, and send them to a folder, or by HTTP PUT to an address")
    pushed.add_argument("--to", metavar="FOLDER|URL", help="default: REMOTE_URL")
    pushed.add_argument("--private-key", metavar="FILE", type=path, required=True, help="PEM file, mode 0600")
    pushed.add_argument("digests", nargs="*", metavar="DIGEST", help="as `store list` shows them; default: all")
    pushed.add_argument("-k", "--kernel", metavar="RELEASE", help="of this kernel release")
    made = add(
        "keygen",
        "storeverbs:keygen",
        "make the keys of a remote folder: one for `store push`, one for REMOTE_PUBLIC_KEY",
    )
    made.add_argument("folder", metavar="DIR", type=path, help="gets private.pem and public.pem")
