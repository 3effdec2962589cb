"""Completion of the verbs and flags in bash, zsh and fish, of the parser by shtab; the program's two names share it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from driverctr.parser import make_parser

OTHER_NAME = "driverctr"


def bash() -> str:
    """For /usr/share/bash-completion/completions, under either name."""
    text = shtab.complete(_parser(), "bash")
    (call,) = [line for line in text.splitlines() if line.startswith("complete ")]
    return f"{_bare(text)}\n{call.rpartition(' ')[0]} {OTHER_NAME}\n"


def zsh() -> str:
    """For a folder of zsh's fpath, as _nvidia-driver."""
    text = shtab.complete(_parser(), "zsh")
    return _bare(text).replace("#compdef nvidia-driver\n", f"#compdef nvidia-driver {OTHER_NAME}\n", 1) + "\n"


def fish() -> str:
    """For /usr/share/fish/vendor_completions.d, under either name."""
    return f"{_bare(shtab.complete(_parser(), 'fish'))}\n\ncomplete -c {OTHER_NAME} -w nvidia-driver\n"


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its verbs, at any depth."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from parsers(verb)


def _parser() -> argparse.ArgumentParser:
    """The parser, with a word for shtab where a file or a folder is expected (its attribute `complete`)."""
    parser = make_parser()
    for one in parsers(parser):
        for action in one._actions:
            if action.type is Path:
                kind = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
                action.complete = kind  # type: ignore[attr-defined]  # where shtab looks for it
    return parser


def _bare(text: str) -> str:
    """Without the head that tells users of shtab where to put it; images have it where shells look."""
    lines = text.rstrip().splitlines()
    return "\n".join(_without_usage(lines))


def _without_usage(lines: list[str]) -> Iterator[str]:
    within = False
    for line in lines:
        if line.startswith("# AUTOMATICALLY GENERATED"):
            within = True
            yield "# Generated from src/driverctr/parser.py by `./dev docs`, with shtab."
        within = within and line.startswith("#")
        if not within:
            yield line
