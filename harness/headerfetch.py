"""What a start fetches to have kernel headers from repositories: measured on some that are made and served here."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import aptrepo, cache, containers, image, kernels

GUEST = Path(__file__).parent / "guest"
SUITES = ("stable-security", "stable")
"""Where the headers are: beside a large index that is then not needed, or in it."""

ALL_SUITES = ("stable", "stable-updates", "stable-security")
# Packages that an index lists beside: as many as Debian 12's own suite has a third of.
MANY, FEW = 20_000, 300
# Increase it when the repositories get other names or files.
FORMAT = 1


@dataclass(frozen=True)
class Fetched:
    """Bytes: what went over the wire, heads of HTTP included; what had to; packages alone; all indexes there are."""

    fetched: int
    needed: int
    packages: int
    offered: int


def measure(tag: str, suite: str) -> Fetched:
    """Have a container find the default kernel's headers, which one suite of a local archive has.

    Raises HarnessError where it does not find them there.
    """
    kernel = kernels.get(kernels.DEFAULT)
    made = cache.entry("header-archive", [FORMAT, MANY, FEW, kernel.release], lambda to: make(to, kernel))
    with tempfile.TemporaryDirectory() as scratch, aptrepo.serving(made) as served:
        listed, own = Path(scratch) / "sources.list", Path(scratch) / "default-repositories"
        chosen = {name: f"{name}-with" if name == suite else f"{name}-without" for name in ALL_SUITES}
        listed.write_text("".join(f"deb {served.address}/{place} {name} main\n" for name, place in chosen.items()))
        own.write_text("/etc/apt/sources.list\n/etc/apt/sources.list.d/none.list\n")
        volumes = {
            GUEST: "/bench",
            made / "archive.asc": "/etc/apt/trusted.gpg.d/archive.asc",
            listed: "/mnt/sources.list",
            own: "/usr/share/driverctr/default-repositories",
        }
        said = containers.output(
            tag,
            # Copied, since what is mounted there would be a user's, which is asked as a whole.
            ["sh", "-c", f"cp /mnt/sources.list /etc/apt/ && python3 /bench/bench_headers.py {kernel.release}"],
            image.BUILD_LIMIT_S,
            network_mode="host",
            volumes={str(path): {"bind": place, "mode": "ro"} for path, place in volumes.items()},
            tmpfs={"/etc/apt/sources.list.d": ""},
        )
        assert json.loads(said)["origin"] == "packages"
        packages = sum(file.stat().st_size for file in (made / chosen[suite] / "pool").iterdir())
        index = sum(sizes(made / chosen[suite]))
        offered = sum(size for place in chosen.values() for size in sizes(made / place))
        return Fetched(sum(served.fetched.values()), packages + index, packages, offered)


def sizes(place: Path) -> Iterator[int]:
    """What apt needs of the index of a repository."""
    for name in ("InRelease", "main/binary-amd64/Packages.xz"):
        yield from (file.stat().st_size for file in place.glob(f"dists/*/{name}"))


def make(to: Path, kernel: kernels.Kernel) -> None:
    """Fill a folder with each suite twice: with the kernel's headers and without."""
    work = to / "work"
    work.mkdir()
    key = aptrepo.make_key(to, "archive")
    packages = list(headers(work, kernel))
    for suite in ALL_SUITES:
        others = stanzas(suite, MANY if suite == "stable" else FEW)
        aptrepo.publish(to / f"{suite}-with", packages, key, suite, others=others)
        aptrepo.publish(to / f"{suite}-without", [], key, suite, others=others)
    shutil.rmtree(work)
    shutil.rmtree(key.home)


def headers(work: Path, kernel: kernels.Kernel) -> Iterator[Path]:
    """Debian's three packages of a kernel's headers, of the files that they have."""
    release, version = kernel.release, "1.0-1"
    trees = {path.name: path for path in kernel.headers.glob("usr/src/linux-headers-*")}
    trees |= {path.name: path for path in kernel.headers.glob("usr/lib/linux-kbuild-*")}
    flavour = f"linux-headers-{release}"
    for name, path in trees.items():
        tree = work / name
        shutil.copytree(path, tree / path.relative_to(kernel.headers), symlinks=True)
        if name == flavour:
            link = tree / "usr/lib/modules" / release / "build"
            link.parent.mkdir(parents=True)
            link.symlink_to(f"/usr/src/{flavour}")
        depends = ", ".join(f"{other} (= {version})" for other in trees if other != flavour) if name == flavour else ""
        yield aptrepo.pack(tree, work, name, version, depends)


def stanzas(suite: str, count: int) -> str:
    """An index of packages that nobody wants, each with what does not compress: its checksum."""
    made = []
    for number in range(count):
        digest = hashlib.sha256(f"{suite} {number}".encode()).hexdigest()
        made.append(
            f"Package: lib{digest[:8]}-{number}\nVersion: {number % 9}.{number % 7}-1\nArchitecture: amd64\n"
            f"Maintainer: somebody <somebody@driverctr.example>\nInstalled-Size: {number}\nDepends: libc6 (>= 2.36)\n"
            f"Description: package {digest[8:16]}\nFilename: pool/main/{digest[:1]}/lib{digest[:8]}.deb\n"
            f"Size: {number * 731}\nSHA256: {digest}\n"
        )
    return "\n".join(made)
