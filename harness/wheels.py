"""Wheels of driverctr and of what it needs, for the Pythons of all images: containers fetch nothing from an index."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from harness import cache, proc

REPOSITORY = Path(__file__).resolve().parent.parent
# Of Debian 12 and 13, Ubuntu 22.04, 24.04 and 26.04, RHEL 8, 9 and 10: pip takes those of the image's own.
PYTHON_VERSIONS = ("3.11", "3.12", "3.13", "3.14")
# One context serves a build for both, with BuildKit and its emulation too.
MACHINES = ("x86_64", "aarch64")
# The oldest glibc among them, RHEL 8's, is 2.28 and takes all of these (PEP 600).
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010")
ZIP_EPOCH = "315532800"
PACKAGE_FILES = ("pyproject.toml", "src")


def dependencies() -> list[str]:
    """Return the run-time requirements as pyproject.toml states them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [str(requirement) for requirement in project["dependencies"]]


def collect(to: Path) -> None:
    """Copy all wheels that the image needs into a folder."""
    to.mkdir(parents=True, exist_ok=True)
    for folder in (_libraries(), _own()):
        for wheel in folder.glob("*.whl"):
            shutil.copy2(wheel, to)


def key_parts() -> list[cache.KeyPart]:
    """Return what the content of the wheels depends on."""
    return [*MACHINES, *PYTHON_VERSIONS, *dependencies(), *(REPOSITORY / name for name in PACKAGE_FILES)]


def _libraries() -> Path:
    def download(to: Path) -> None:
        # pip itself is among them: the image's Python comes without one, and needs it only once.
        requirements = [*dependencies(), "pip"]
        for machine, version in itertools.product(MACHINES, PYTHON_VERSIONS):
            platforms = [f"--platform={name}_{machine}" for name in PLATFORMS]
            options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={version}", *platforms]
            proc.run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", to, *options, *requirements])

    return cache.entry("wheels", [*MACHINES, *PYTHON_VERSIONS, *dependencies()], download)


def _own() -> Path:
    def build(to: Path) -> None:
        # setuptools leaves build/ and egg-info beside the sources it packs.
        with tempfile.TemporaryDirectory() as scratch:
            for name in PACKAGE_FILES:
                source = REPOSITORY / name
                if source.is_dir():
                    shutil.copytree(source, Path(scratch) / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(source, scratch)
            pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
            # The same bytes of the same sources: a zip archive's first day, not that of the checkout (wheel reads it).
            proc.run([*pip, to, scratch], env={**os.environ, "SOURCE_DATE_EPOCH": ZIP_EPOCH})

    return cache.entry("own-wheel", [REPOSITORY / name for name in PACKAGE_FILES], build)
