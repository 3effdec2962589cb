"""NVIDIA's run-file: a shell script with what is in it in its first lines, and a compressed tar behind it.

Its options are those of NVIDIA's own makeself (1.6.0-nv): --check, and --extract-only with --target.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from driver_files import BuildError

# How much of a file is looked at for what it says of itself.
HEAD_BYTES = 1 << 18
MIB = 1 << 20
TAIL_LINES = 20
GRID = "-grid"
OTHER_FILE = "Give the file of DRIVER_VERSION and TARGETARCH (RUNFILE), or correct these"


@dataclass(frozen=True)
class Head:
    """What a run-file says of itself: `size` is that of its content, in bytes, 0 where it does not tell."""

    version: str
    machine: str
    size: int


def name_of(version: str) -> str:
    """Return what NVIDIA calls the run-file of a version for this machine; that of a vGPU guest ends in -grid."""
    return f"NVIDIA-Linux-{os.uname().machine}-{version}.run"


def plain(version: str) -> str:
    """Return the version that modules and firmware bear: that of a vGPU guest has no suffix there."""
    return version[: -len(GRID)] if version.endswith(GRID) else version


def find(place: Path, version: str) -> Path:
    """Return the file named, or the one of this version and machine in the folder named; raises BuildError."""
    if place.is_file():
        return place
    wanted = name_of(version)
    if not place.is_dir():
        raise BuildError(f"there is no run-file {place}", f"Put {wanted} there, or give BASE_URL to fetch it")
    if (place / wanted).is_file():
        return place / wanted
    has = ", ".join(sorted(path.name for path in place.glob("*.run"))) or "no run-file"
    raise BuildError(f"{place} has {has}, not {wanted}", OTHER_FILE)


def read_head(file: Path) -> Head:
    """Read what a file says of itself; raises BuildError where it is no run-file of NVIDIA's driver."""
    with file.open("rb") as content:
        text = content.read(HEAD_BYTES).decode("latin-1")
    told = re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE) if text.startswith("#!") else []
    # What counts is what a name is set to first; the rest is the script, and bytes that look like one.
    fields: dict[str, str] = dict(reversed(told))
    named = re.match(r"NVIDIA-Linux-(\w+)-([\d.]+)", fields.get("targetdir", ""))
    if named is None or not {"CRCsum", "skip"} <= fields.keys():
        shown = " ".join(text[:60].split())
        raise BuildError(
            f"{file} is not a run-file of NVIDIA's driver: it begins with {shown!a}",
            "Look at what BASE_URL or RUNFILE leads to: a proxy's page, another file?",
        )
    size = re.search(r"Uncompressed size : (\d+) KB", text)
    version = fields.get("version_string", named.group(2))
    return Head(version, fields.get("TARGET_ARCH", named.group(1)), int(size.group(1)) << 10 if size else 0)


def check(file: Path, version: str) -> Head:
    """Raise BuildError unless a file is a whole run-file of this version for this machine."""
    head = read_head(file)
    machine = os.uname().machine
    if head.machine != machine:
        raise BuildError(f"{file.name} is for {head.machine}, the image is for {machine}", OTHER_FILE)
    if plain(head.version) != plain(version):
        raise BuildError(f"{file.name} holds driver {head.version}, DRIVER_VERSION is {version}", OTHER_FILE)
    checked = run(file, "--check")
    if checked.returncode != 0:
        raise BuildError(
            f"{file} is damaged or cut short, at {file.stat().st_size} bytes: {last_lines(checked.stdout, 1)}",
            "Fetch it anew, whole",
        )
    return head


def extract(file: Path, head: Head, to: Path) -> None:
    """Unpack a run-file into a folder that is not there yet; raises BuildError."""
    free = shutil.disk_usage(to.parent).free
    room = f"{head.size // MIB} MiB to unpack, {free // MIB} MiB free"
    if head.size > free:
        raise BuildError(f"the disk of {to.parent} is full: {file.name} has {room}", "Set TMPDIR to another disk")
    done = run(file, "--extract-only", "--target", str(to))
    if done.returncode != 0 or not (to / ".manifest").is_file():
        # Its own tar keeps silent of why, the disk included.
        raise BuildError(
            f"{file.name} cannot be unpacked into {to}, exit {done.returncode} ({room})",
            "See its words below; it wants sh, tar, awk, cksum and a folder to run programs in (TMPDIR)",
            last_lines(done.stdout, TAIL_LINES),
        )


def run(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script; its words of both kinds are in stdout. It is given to sh: it need not be executable."""
    argv: list[str | Path] = ["sh", file.resolve(), *words]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def last_lines(text: str, count: int) -> str:
    """Return the last lines with something in them."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
