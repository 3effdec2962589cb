#!/usr/bin/python3
"""Lay out NVIDIA's files of one driver version below a folder, from NVIDIA's run-file, and describe them.

The run-file is fetched or given, checked and unpacked; its nvidia-installer installs the userspace into the root we run
in, a stage of the image's build, and what it put there is copied to the folder. The module sources are laid out by us:
on a node our own program builds them, and nvidia-installer does not run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import archive
import download
import driver_files
import installed
from archive import last_lines, plain
from driver_files import BuildError, ModuleSource

LOG_LINES = 25
LOG = "nvidia-installer.log"
# Those of NVIDIA's container (its _install_userspace_components), but for two: nvidia-modprobe is installed, programs
# that run without privileges need it; module sources are not, we lay them out. Nothing of X serves in a container.
FLAGS = (
    "--silent",
    "--no-kernel-module",
    "--no-kernel-module-source",
    "--no-nouveau-check",
    "--no-rpms",
    "--no-backup",
    "--no-check-for-alternate-installs",
    "--no-libglx-indirect",
    "--no-install-libglvnd",
    "--x-prefix=/tmp/null",
    "--x-module-path=/tmp/null",
    "--x-library-path=/tmp/null",
    "--x-sysconfig-path=/tmp/null",
)
# What else it is told, where it knows the word: unasked, it installs 32-bit libraries where RHEL has them (/usr/lib).
FLAGS_OF_MACHINE = {"x86_64": ("--no-install-compat32-libs",)}
# What neighbours look for by name: an installer that ends well without one of them did not do what we think.
ESSENTIAL = ("nvidia-smi", "nvidia-persistenced", "libcuda.so.1", "libnvidia-ml.so.1")


def main(argv: Sequence[str]) -> int:
    """Build the tree; the exit status is 0, 1 with the reason, or 2 on wrong usage."""
    given = parse(argv)
    return driver_files.end(lambda: build(given, Path("/")))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; an option left empty, as a Dockerfile's build argument is, counts as not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", required=True, help="of the driver, as in the name of the file")
    parser.add_argument("--base-url", default="", help="fetch BASE_URL/VERSION/NVIDIA-Linux-MACHINE-VERSION.run")
    parser.add_argument("--file", default="", help="the file itself, or a folder with it, instead")
    parser.add_argument("--sha256", default="", help="what the file's SHA-256 must be")
    parser.add_argument("out", type=Path, metavar="OUT")
    return parser.parse_args(argv)


def build(given: argparse.Namespace, root: Path) -> None:
    """Fill the folder; `root` is where the installer installs."""
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    release = driver_files.read_release(root)
    with tempfile.TemporaryDirectory() as scratch:
        file = obtain(given, Path(scratch))
        head = archive.check(file, given.version)
        content = Path(scratch, "content")
        archive.extract(file, head, content)
        check_manifest(content, given.version)
        before = installed.look(root, apart=(out, Path(scratch)))
        install(content, Path(scratch))
        installed.collect(root, before, out, apart=(out, Path(scratch)))
        complete(content, root, out, given.version)
        check_essential(out)
        driver_files.make_relative(out)
        driver_files.list_userspace(out, given.version, release)
        sources = lay_out_sources(content, out, given.version)
    driver_files.describe(out, given.version, sources, release, driver_files.RUNFILE)
    driver_files.check_links(out, base=root)


def obtain(given: argparse.Namespace, scratch: Path) -> Path:
    """Return the run-file, fetched if need be, with the SHA-256 that was asked for or that its server has."""
    wanted, origin = given.sha256.lower(), "RUNFILE_SHA256"
    if wanted and not download.is_sum(wanted):
        raise BuildError(f"RUNFILE_SHA256={given.sha256} is no SHA-256", "Give its 64 hex digits, or leave it empty")
    if given.file:
        file = archive.find(Path(given.file), given.version)
    elif given.base_url:
        url = f"{given.base_url.rstrip('/')}/{given.version}/{archive.name_of(given.version)}"
        file = download.fetch(url, scratch)
        if not wanted:
            wanted, origin = download.published_sum(url), f"{url}.sha256sum"
    else:
        raise BuildError("neither BASE_URL nor RUNFILE is given", "Say where the run-file comes from")
    archive.read_head(file)
    if wanted:
        download.check_sum(file, wanted, origin)
    else:
        print(f"{file.name}: no SHA-256 is known, only the sums in the file itself are checked", flush=True)
    return file


def check_manifest(content: Path, version: str) -> None:
    """Raise BuildError where the archive holds another version than its script says."""
    lines = (content / ".manifest").read_text(errors="replace").splitlines()
    found = lines[1] if len(lines) > 1 else "nothing"
    if plain(found) != plain(version):
        raise BuildError(f"the run-file holds driver {found} by its .manifest, not {version}", archive.OTHER_FILE)


def install(content: Path, scratch: Path) -> None:
    """Run nvidia-installer in the unpacked folder; raises BuildError with the end of its log."""
    log = scratch / LOG
    argv = ["./nvidia-installer", *FLAGS, *FLAGS_OF_MACHINE.get(os.uname().machine, ()), f"--log-file-name={log}"]
    print(" ".join(argv), flush=True)
    try:
        done = subprocess.run(
            argv, cwd=content, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except OSError as error:
        raise BuildError(
            f"nvidia-installer of the run-file cannot be run: {error.strerror}",
            "Set TMPDIR to a folder that programs can be run in",
        ) from error
    if done.returncode != 0:
        said = log.read_text(errors="replace") if log.is_file() else done.stdout
        raise BuildError(
            f"nvidia-installer ended with {done.returncode}; the end of its log follows",
            "It names what it lacks: install that in this stage of the Dockerfile",
            last_lines(said, LOG_LINES),
        )


def complete(content: Path, root: Path, out: Path, version: str) -> None:
    """Add what the installer leaves out, or puts where only people look."""
    # /lib is a link to usr/lib in most images; a folder of that name in a copied tree would stand in its way.
    library = "usr/lib" if (root / "lib").is_symlink() or not (root / "lib").exists() else "lib"
    firmware = out / library / "firmware/nvidia" / plain(version)
    for blob in sorted((content / "firmware").glob("*.bin")):
        if not (firmware / blob.name).exists():
            driver_files.copy(blob, firmware / blob.name)
    listed = content / "supported-gpus/supported-gpus.json"
    if listed.is_file():
        driver_files.copy(listed, out / driver_files.SUPPORTED_GPUS)


def check_essential(out: Path) -> None:
    """Raise BuildError if something is missing without which nobody can use the driver."""
    names = {path.name for path in out.rglob("*") if path.exists() or path.is_symlink()}
    missing = [name for name in ESSENTIAL if name not in names]
    if missing:
        raise BuildError(
            f"nvidia-installer ended well, but installed no {', '.join(missing)}",
            "Begin from a base without a driver: what is there already counts as not installed",
        )


def lay_out_sources(content: Path, out: Path, version: str) -> list[ModuleSource]:
    """Keep the module sources of both types, as far as the archive has them; raises BuildError if it has none."""
    described = []
    for module_type, folder in driver_files.SOURCE_FOLDERS.items():
        if (content / folder / "Makefile").is_file():
            tree = driver_files.source_tree(out, plain(version), module_type)
            shutil.copytree(content / folder, tree, symlinks=True, dirs_exist_ok=True)
            described.append(driver_files.finish_source(out, plain(version), module_type, content / "LICENSE"))
    if not described:
        raise BuildError(
            f"the run-file has no module source: {' and '.join(driver_files.SOURCE_FOLDERS.values())} are missing",
            archive.OTHER_FILE,
        )
    return described


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    sys.exit(main(sys.argv[1:]))
