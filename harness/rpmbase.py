"""A base image with real dnf and rpm, as Debian packages them, and what makes repositories for them."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from docker.errors import ImageNotFound

from harness import apt, cache, dockerd, proc

# createrepo-c and gnupg make and sign repositories; curl is on every image of RHEL, cpio and dnf-plugins-core are what
# Dockerfile.rhel installs.
PACKAGES = (
    "ca-certificates",
    "cpio",
    "createrepo-c",
    "curl",
    "dnf",
    "dnf-plugins-core",
    "gnupg",
    "openssl",
    "python3",
    "rpm",
)
NAME = "driverctr-rpm-base"
BUILD_LIMIT_S = 1800
LEFT_OUT = ("man", "info", "locale", "lintian", "doc")


def image(extra: Sequence[str] = (), files: Mapping[str, str] | None = None) -> str:
    """Return the tag of the base, made from the machine's own Debian archive.

    `extra` are more Debian packages, `files` are texts by path to lie in it (etc/os-release), in place of Debian's own.
    Raises HarnessError if the packages are not to be had.
    """
    sources = apt.sources()
    packages = sorted({*PACKAGES, *extra})
    texts = dict(sorted((files or {}).items()))
    parts = [apt.SUITE, sources, *packages, *(word for pair in texts.items() for word in pair)]
    made = cache.entry("rpm-base", parts, lambda to: _debootstrap(to, sources, packages, texts))
    cache.prune(made.parent, cache.LARGE_KEPT)
    client = dockerd.client()
    tag = f"{NAME}:{made.name}"
    with cache.lock(f"base-image-{made.name}"):
        try:
            client.images.get(tag)
        except ImageNotFound:
            client.api.import_image(src=str(made / "root.tar"), repository=NAME, tag=made.name)
    return tag


def _debootstrap(to: Path, sources: str, packages: Sequence[str], texts: Mapping[str, str]) -> None:
    listed = to / "sources.list"
    listed.write_text(sources)
    with tempfile.TemporaryDirectory() as scratch:
        overlay = Path(scratch) / "overlay"
        overlay.mkdir()
        for name, text in texts.items():
            file = overlay / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        options = [
            "--quiet",
            "--variant=minbase",
            "--aptopt=Acquire::Languages none",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT),
            f"--include={','.join(packages)}",
            # A file that is a link in Debian (etc/os-release) is replaced, not written through.
            f'--customize-hook=cp --recursive --remove-destination {shlex.quote(str(overlay))}/. "$1"/',
        ]
        mmdebstrap = proc.need("mmdebstrap", "mmdebstrap")
        proc.run([mmdebstrap, *options, apt.SUITE, to / "root.tar", listed], timeout=BUILD_LIMIT_S)
