"""Child processes of the harness: one way to start them, one way to report their failure."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import HarnessError

TAIL_LINES = 30


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    data: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run a command to its end and return its standard output.

    `timeout` is in seconds. Raises HarnessError with the end of the output if the command is missing, fails
    or takes too long.
    """
    shown = " ".join(str(word) for word in argv)
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env=env,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except FileNotFoundError as error:
        raise HarnessError(f"{argv[0]} is not installed, needed for: {shown}") from error
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"no end after {timeout:.0f} s: {shown}") from error
    if done.returncode != 0:
        raise HarnessError(f"exit {done.returncode}: {shown}\n{tail(done.stdout + done.stderr)}")
    return done.stdout


def need(program: str, package: str) -> Path:
    """Return the path of a program; raises HarnessError naming the package that brings it."""
    found = shutil.which(program)
    if found is None:
        raise HarnessError(f"{program} is not installed", f"Install it: apt-get install {package}")
    return Path(found)


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


def run_bytes(argv: Sequence[str | Path], data: bytes) -> bytes:
    """Run a filter: bytes in, bytes out. Raises HarnessError if it fails."""
    done = subprocess.run([str(word) for word in argv], input=data, capture_output=True)
    if done.returncode != 0:
        raise HarnessError(f"exit {done.returncode}: {argv[0]}\n{tail(done.stderr.decode(errors='replace'))}")
    return done.stdout
