"""The harness's command line, behind ./dev."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from harness import kernels, vm
from harness.errors import HarnessError
from harness.vm import Outcome, Share, VmSpec

# Distinct from what a guest's command returns in practice.
EXIT_NO_STATUS = 125
EXIT_HARNESS = 126


def main(argv: list[str] | None = None) -> int:
    """Run one harness command: vm, or the main() of the module of that name in harness.commands."""
    words = sys.argv[1:] if argv is None else argv
    if words and find_spec(f"harness.commands.{words[0]}"):
        return _dispatch(words[0], words[1:])
    parser = argparse.ArgumentParser(prog="python3 -m harness", description="the proving ground")
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_vm(verbs.add_parser("vm", help="run a command on a host in a virtual machine, or a shell there"))
    args = parser.parse_args(argv)
    try:
        return _vm(args)
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return EXIT_HARNESS


def _dispatch(name: str, arguments: list[str]) -> int:
    try:
        return int(import_module(f"harness.commands.{name}").main(arguments))
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return EXIT_HARNESS


def _add_vm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel", default=kernels.DEFAULT, help="release or its beginning (6.1, 6.12): the newest")
    parser.add_argument("--gpu", default=vm.DEFAULT_GPU, help="chip of the emulated GPU, or none")
    parser.add_argument("--share", action="append", default=[], metavar="NAME=DIR[:rw]", help="at /mnt/NAME")
    parser.add_argument("--image", action="append", default=[], metavar="NAME=DIR", help="at /images/NAME")
    parser.add_argument("--scratch", action="append", default=[], metavar="DIR", help="on a disk, not in memory")
    parser.add_argument(
        "--kept", action="append", default=[], metavar="DIR=FILE", help="on a disk that is this file and is kept"
    )
    parser.add_argument("--no-headers", action="store_true", help="a host without kernel headers")
    parser.add_argument("--memory", type=int, default=vm.MEMORY_MB, metavar="MB")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--parallel", action="store_true", help="emulated processors side by side: faster, less safe")
    parser.add_argument("--append", default="", help="more words for the kernel's command line")
    parser.add_argument("--timeout", type=float, default=vm.TIMEOUT, metavar="SECONDS")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--shell", action="store_true", help="an interactive shell instead of a command")
    what.add_argument("--script", type=Path, help="a bash script instead of a command")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="after --; one word is a shell command")


def _vm(args: argparse.Namespace) -> int:
    spec = VmSpec(
        kernel=args.kernel,
        gpu=None if args.gpu == "none" else args.gpu,
        headers=not args.no_headers,
        memory_mb=args.memory,
        cpus=args.cpus,
        parallel=args.parallel,
        shares={name: _share(value) for name, value in map(_named, args.share)},
        images={name: Path(value) for name, value in map(_named, args.image)},
        scratch=args.scratch,
        kept=dict(map(_kept, args.kept)),
        append=args.append,
        timeout=args.timeout,
    )
    if args.shell:
        return vm.shell(spec)
    result = vm.run(spec, _script(args), live=True)
    if result.exit_status is None:
        print(f"harness: {result.report()}", file=sys.stderr)
        return EXIT_NO_STATUS
    print(f"[{result.outcome} in {result.seconds:.1f} s]", file=sys.stderr)
    if result.outcome is Outcome.FAILED:
        print(f"[repeat: {result.repeat_command}]", file=sys.stderr)
    return result.exit_status


def _script(args: argparse.Namespace) -> str | list[str]:
    if args.script:
        return str(args.script.read_text())
    words: list[str] = args.command
    if not words:
        raise HarnessError("no COMMAND", "Give one after --, or --script FILE, or --shell")
    return words[0] if len(words) == 1 else words


def _named(text: str) -> tuple[str, str]:
    name, sep, value = text.partition("=")
    if not sep or not name.replace("-", "").isalnum() or not Path(value.removesuffix(":rw")).exists():
        raise HarnessError(f"{text!r} is not NAME=PATH with a path that exists")
    return name, value


def _kept(text: str) -> tuple[str, Path]:
    folder, sep, disk = text.partition("=")
    if not sep or not folder.startswith("/") or not Path(disk).parent.is_dir():
        raise HarnessError(f"{text!r} is not FOLDER=FILE with a file in a folder that exists")
    return folder, Path(disk)


def _share(value: str) -> Share:
    return Share(Path(value.removesuffix(":rw")), writable=value.endswith(":rw"))
