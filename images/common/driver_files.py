"""What is the same whatever the driver came from: its files described, its module sources laid out, its links checked.

For the scripts that fill a folder with one driver at image build, on the distribution's own Python: 3.9 or later.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# Kept from /usr/src, on which a user without hostPID mounts the host's headers; a relative link leads here from there.
SOURCES = Path("opt/driverctr/source")
DESCRIPTION = "usr/share/driverctr/image.json"
LISTING = "usr/share/driverctr/userspace.json"
SUPPORTED_GPUS = "usr/share/nvidia/supported-gpus.json"
# Documentation, and lists that only our own program reads: no part of what a neighbour finds of the driver.
NOT_USERSPACE = "usr/share"
# Module types, and the folder of each in NVIDIA's own layout.
SOURCE_FOLDERS = {"proprietary": "kernel", "open": "kernel-open"}
# What uname(1) calls a machine, and container images too (GOARCH); dpkg happens to say the same.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Prints what cuDriverGetVersion says of the library named.
ASK = """import ctypes, sys
number = ctypes.c_int()
ctypes.CDLL(sys.argv[1]).cuDriverGetVersion(ctypes.byref(number))
print(number.value)"""
ASK_LIMIT_S = 60
RUNFILE = "runfile"
PACKAGES = "packages"


class BuildError(Exception):
    """Why the image cannot be built, in one line: what, where, and what to do about it."""

    def __init__(self, message: str, remedy: str, details: str = "") -> None:
        """Keep them; `details` are the words of another program, which follow in lines of their own."""
        super().__init__(f"{message}. {remedy}")
        self.details = details


@dataclass(frozen=True)
class ModuleSource:
    """One tree of kernel module source in the image."""

    type: str
    version: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Release:
    """The distribution of an image: ID and VERSION_ID of its os-release(5)."""

    id: str
    version: str


def end(build: Callable[[], None]) -> int:
    """Run a build; the exit status is 0, or 1 with its error on standard error."""
    try:
        build()
    except BuildError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        if error.details:
            print(error.details, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"{Path(sys.argv[0]).name}: {error} See its words above.", file=sys.stderr)
        return 1
    return 0


def run(argv: Sequence[str], usage: str | None, build: Callable[[str, Path], None]) -> int:
    """Run a script whose arguments are a text and a folder; its exit status is that of `end`, or 2 on wrong usage."""
    if len(argv) != 2:
        print(usage, file=sys.stderr)
        return 2
    return end(lambda: build(argv[0], Path(argv[1])))


def read_release(root: Path = Path("/")) -> Release:
    """Read os-release(5) of a root; raises BuildError where there is none."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        if (root / name).is_file():
            lines = (root / name).read_text().splitlines()
            pairs = [line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#")]
            fields = {name: "".join(shlex.split(value)) for name, value in pairs}
            return Release(fields.get("ID", "linux"), fields.get("VERSION_ID", ""))
    raise BuildError(f"{root} has no etc/os-release", "Give the image a base of a distribution (BASE_IMAGE)")


def architecture() -> str:
    """Return this machine's architecture as container images name it."""
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, machine)


def triplet() -> str:
    """Return the name of Debian's standard library folder of this architecture."""
    return f"{os.uname().machine}-linux-gnu"


def copy(source: Path, target: Path) -> None:
    """Copy a file with its mode and times, or a link as it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


def source_tree(root: Path, version: str, module_type: str) -> Path:
    """Return where a module source is to lie, made, and shown where NVIDIA's installer puts it: /usr/src/nvidia-V."""
    place = SOURCES / f"nvidia-{version}"
    tree = root / place / SOURCE_FOLDERS[module_type]
    tree.mkdir(parents=True)
    shown = root / "usr/src" / place.name
    if not shown.is_symlink():
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.symlink_to(os.path.relpath(root / place, shown.parent))
    return tree


def finish_source(root: Path, version: str, module_type: str, licence: Path) -> ModuleSource:
    """Take from a source what is of no use, put its licence beside it, and describe it."""
    place = SOURCES / f"nvidia-{version}"
    tree = root / place / SOURCE_FOLDERS[module_type]
    # A distribution's packaging of the modules, and DKMS, are of no use here.
    shutil.rmtree(tree / "debian", ignore_errors=True)
    (tree / "dkms.conf").unlink(missing_ok=True)
    for binary in sorted(tree.rglob("*.o_binary")):
        # The open release carries 160 MB of debug information in these; the modules are stripped of it anyway.
        subprocess.run(["strip", "--strip-debug", "--preserve-dates", binary], check=True)
    copy(licence, root / place / "LICENSE")
    return ModuleSource(module_type, version, f"/{place / tree.name}", tree_digest(tree))


def tree_digest(tree: Path) -> str:
    """Return the SHA-256 over all files of a tree, by name: name, size and content of each."""
    total = hashlib.sha256()
    for file in sorted((p for p in tree.rglob("*") if p.is_file()), key=lambda p: p.relative_to(tree).as_posix()):
        content = file.read_bytes()
        total.update(f"{file.relative_to(tree).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def list_userspace(root: Path, version: str, release: Release) -> None:
    """Write what belongs to the userspace, while nothing else is there: the program keeps it for a rollback."""
    found = [path for path in sorted(root.rglob("*")) if path.is_symlink() or path.is_file()]
    items = [describe_file(root, path) for path in found if not path.is_relative_to(root / NOT_USERSPACE)]
    record = {
        "schema": 1,
        "driver_version": version,
        "platform": f"{release.id}-{architecture()}",
        "cuda_version": cuda_version(root, version),
        "items": items,
    }
    target = root / LISTING
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")


def describe_file(root: Path, path: Path) -> dict[str, str | int]:
    """Describe a file by its content and mode, a link by where it leads."""
    name = path.relative_to(root).as_posix()
    if path.is_symlink():
        return {"path": name, "link": os.readlink(path), "sha256": "", "size": 0, "mode": 0o777}
    content = path.read_bytes()
    mode = path.stat().st_mode & 0o7777
    return {"path": name, "link": "", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "mode": mode}


def describe(root: Path, version: str, sources: Sequence[ModuleSource], release: Release, origin: str) -> None:
    """Write what the image holds, for the program to read."""
    record = {
        "driver_version": version,
        "sources": [asdict(source) for source in sources],
        "distribution": release.id,
        "distribution_version": release.version,
        "architecture": architecture(),
        "origin": origin,
        "cuda_version": cuda_version(root, version),
    }
    target = root / DESCRIPTION
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")


def cuda_version(root: Path, version: str) -> str:
    """Return the newest CUDA that the driver's libcuda serves, as "12.2"; empty where it cannot be asked.

    By its own word, which it gives without a GPU and a kernel module (CUDA Driver API, cuDriverGetVersion: 1000 times
    the major number, 10 times the minor one). Another process asks: what a library does when it is loaded is its own.
    """
    for library in (path for path in sorted(root.rglob(f"libcuda.so.{version}")) if is_elf(path)):
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", ASK, library],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=ASK_LIMIT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip().isdigit() and int(done.stdout) >= 1000:
            return f"{int(done.stdout) // 1000}.{int(done.stdout) % 1000 // 10}"
    return ""


def is_elf(path: Path) -> bool:
    """Return whether a file begins as programs and libraries do (elf(5)); a link to one does too."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def make_relative(root: Path) -> None:
    """Turn each absolute link of a tree into a relative one: neighbours follow them from outside the driver root."""
    for path in sorted(root.rglob("*")):
        if path.is_symlink() and os.path.isabs(os.readlink(path)):
            target = os.path.relpath(root / os.readlink(path).lstrip("/"), path.parent)
            path.unlink()
            path.symlink_to(target)


def check_links(root: Path, base: Path | None = None) -> None:
    """Raise BuildError if a link leaves the tree or points nowhere; it may lead to a file of the `base` image."""
    for path in root.rglob("*"):
        if path.is_symlink() and not leads_somewhere(path, root, base):
            raise BuildError(
                f"{path} -> {os.readlink(path)} is a link that breaks outside the driver root",
                "Report it: the driver's files are not as known",
            )


def leads_somewhere(link: Path, root: Path, base: Path | None) -> bool:
    """Return whether a link is relative and its target in the tree, or where the tree will lie in the image."""
    target = os.readlink(link)
    name = os.path.normpath(link.parent.relative_to(root) / target)
    if os.path.isabs(target) or name.startswith(".."):
        return False
    return link.exists() or (base is not None and (base / name).exists())
