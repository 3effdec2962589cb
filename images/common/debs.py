"""Packages of a driver by apt, fetched and unpacked but not installed; for Debian's images and Ubuntu's."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path

from driver_files import BuildError


def choose(exact: Iterable[str], companions: Iterable[str], version: str, optional: Collection[str]) -> dict[str, str]:
    """Return the full version to fetch of each package; raises BuildError.

    `exact` are of the driver's own version, `companions` of its branch and not newer. Of those that are `optional`, one
    that is not offered is left out, and that is said.
    """
    wanted = {}
    for names, exactly in ((exact, True), (companions, False)):
        for name in names:
            try:
                wanted[name] = newest(name, version, exactly=exactly)
            except BuildError as error:
                if name not in optional:
                    raise
                print(f"left out: {error}", flush=True)
    return wanted


def whatever_is_offered(package: str) -> dict[str, str]:
    """Return the full version to fetch of a package that serves a driver of any version; nothing where none is."""
    offered = offers(package)
    return {package: offered[0]} if offered else {}


def fetch(wanted: dict[str, str], scratch: Path) -> tuple[Path, dict[str, str]]:
    """Download and unpack packages; returns the folder of unpacked trees, and each package's upstream version."""
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "--quiet", "download"]
    subprocess.run([*command, *(f"{name}={full}" for name, full in wanted.items())], cwd=scratch, check=True)
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    for name in wanted:
        (archive,) = scratch.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, unpacked / name], check=True)
        archive.unlink()
    return unpacked, {name: upstream(full) for name, full in wanted.items()}


def newest(package: str, version: str, *, exactly: bool) -> str:
    """Return the newest package version offered that fits the driver: the same, or of its branch and not newer."""
    offered = offers(package)
    branch = version.partition(".")[0]
    fitting = [
        full
        for full in offered
        if upstream(full) == version
        or (not exactly and upstream(full).partition(".")[0] == branch and order(upstream(full)) < order(version))
    ]
    if not fitting:
        raise BuildError(
            f"the package sources have no {package} for driver {version}, but: {', '.join(offered) or 'none at all'}",
            "Give DRIVER_VERSION one of these, or other sources (APT_SOURCES)",
        )
    return max(fitting, key=lambda full: (order(upstream(full)), offered.index(full) * -1))


def offers(package: str) -> list[str]:
    """Return the versions of a package in the package sources, as apt prefers them."""
    shown = subprocess.run(["apt-cache", "madison", package], check=True, stdout=subprocess.PIPE, text=True).stdout
    return list(dict.fromkeys(line.split("|")[1].strip() for line in shown.splitlines()))


def upstream(full: str) -> str:
    """Return NVIDIA's own version of a Debian package version."""
    return full.rpartition(":")[2].rpartition("-")[0]


def order(version: str) -> tuple[int, ...]:
    """Return a sort key of NVIDIA's versions, which are numbers and dots."""
    return tuple(int(part) for part in version.split("."))
