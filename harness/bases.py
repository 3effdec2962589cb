"""What the images start from in tests: a Debian made from the machine's own archive, also in the guise of others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from docker.errors import ImageNotFound

from harness import apt, cache, dockerd, flavours, foreign, kernels, proc, serving
from harness.flavours import Flavour

REPOSITORY_NAME = "driverctr-base"
OS_RELEASE = "usr/lib/os-release"

KEYRING = "usr/share/keyrings/driverctr-test.asc"
UBUNTU_RELEASE = """\
PRETTY_NAME="Ubuntu 22.04 (a Debian in its clothes, for tests of driverctr)"
NAME="Ubuntu"
VERSION_ID="22.04"
VERSION="22.04 (Jammy Jellyfish)"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=jammy
"""
RHEL_RELEASE = """\
NAME="Red Hat Enterprise Linux"
VERSION="9.4 (Plow)"
ID="rhel"
ID_LIKE="fedora"
VERSION_ID="9.4"
PLATFORM_ID="platform:el9"
PRETTY_NAME="Red Hat Enterprise Linux 9.4 (a Debian with dnf in its clothes, for tests of driverctr)"
"""
# RHEL's linker looks into /usr/lib64 by itself, Debian's is told; no rpm tells dnf the release; a plugin that Debian
# brings along would have a repository of its own.
RHEL_FILES = {
    "etc/ld.so.conf.d/lib64.conf": "/usr/lib64\n",
    "etc/dnf/vars/releasever": "9\n",
    "etc/dnf/plugins/local.conf": "[main]\nenabled = false\n",
}


@dataclass(frozen=True)
class Base:
    """An image to start from, and what goes with it.

    `arguments` are those of the build; `files` are added to its context, by their place there; `served` is a folder
    with package repositories that the build, and whoever wants headers later, fetches from.
    """

    image: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    served: Path | None = None


def debian() -> Base:
    """Return a base image made from the machine's own archive where that is Debian 12's, else Docker's own."""
    if os.environ.get(apt.SOURCES_VARIABLE) is None and not apt.configured():
        return Base(foreign.IMAGE, {"APT_SOURCES": ""})
    sources = apt.sources(kernels.EXTRA_SUITES)
    made = cache.entry("base", [apt.SUITE, sources], lambda to: _debootstrap(to, sources))
    return Base(imported(made / "root.tar", made.name), {"APT_SOURCES": sources})


def of(flavour: Flavour, driver_version: str) -> Base:
    """Return what tests build a flavour on."""
    made = {flavours.DEBIAN: _debian, flavours.UBUNTU: _ubuntu, flavours.RHEL: _rhel}
    return made[flavour](flavour, driver_version)


def imported(root: Path, name: str) -> str:
    """Return the image of a root file system in a tar archive, imported if Docker has none of that name."""
    image = f"{REPOSITORY_NAME}:{name}"
    client = dockerd.client()
    with cache.lock(f"base-image-{name}"):
        try:
            client.images.get(image)
        except ImageNotFound:
            client.api.import_image(src=str(root), repository=REPOSITORY_NAME, tag=name)
    return image


def dressed(image: str, files: Mapping[str, str | bytes], name: str) -> str:
    """Return an image with files, by their place below its root, over those of another; built if Docker has none."""
    digest = cache.key([image, *(part for pair in sorted(files.items()) for part in pair)])
    tag = f"{REPOSITORY_NAME}:{name}-{digest}"
    client = dockerd.client()
    with cache.lock(f"base-image-{name}"), tempfile.TemporaryDirectory() as scratch:
        try:
            client.images.get(tag)
        except ImageNotFound:
            _fill(Path(scratch), image, files)
            client.images.build(path=scratch, tag=tag, rm=True, forcerm=True)
    return tag


def _debian(flavour: Flavour, driver_version: str) -> Base:
    return debian()


def _ubuntu(flavour: Flavour, driver_version: str) -> Base:
    """Debian in Ubuntu's clothes, and a repository with kernel headers and a driver under Ubuntu's names."""
    from harness import debrepo

    plain, repository = debian(), debrepo.repository(driver_version)
    image = dressed(plain.image, {OS_RELEASE: UBUNTU_RELEASE, KEYRING: repository.key}, flavour.name)
    line = f"deb [signed-by=/{KEYRING}] {serving.URL} {debrepo.SUITE} main\n"
    sources = plain.arguments["APT_SOURCES"] or apt.sources(kernels.EXTRA_SUITES).replace(f"={foreign.root()}/", "=/")
    return Base(
        image,
        {**_arguments(flavour), "APT_SOURCES": sources + line},
        _run_file(flavour, driver_version),
        repository.folder,
    )


def _rhel(flavour: Flavour, driver_version: str) -> Base:
    """Debian with real dnf and rpm in RHEL's clothes, a repository with RHEL's names, and a run-file."""
    from harness import rhelrepo, rpmbase

    repository = rhelrepo.repository()
    image = rpmbase.image(rhelrepo.PROGRAMS, {"etc/os-release": RHEL_RELEASE, OS_RELEASE: RHEL_RELEASE, **RHEL_FILES})
    files = {"repositories": repository.files, **_run_file(flavour, driver_version)}
    return Base(image, _arguments(flavour), files, repository.folder)


def _run_file(flavour: Flavour, driver_version: str) -> dict[str, Path]:
    from harness import runfile

    found = runfile.get(driver_version) if flavour.origin == flavours.RUNFILE else None
    return {found.name: found} if found else {}


def _arguments(flavour: Flavour) -> dict[str, str]:
    return {"PYTHON": flavour.python, "DRIVER_SOURCE": flavour.origin, "OS_TAG": f"{flavour.os_tag}-test"}


def _fill(context: Path, image: str, files: Mapping[str, str | bytes]) -> None:
    for place, content in files.items():
        path = context / "root" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (context / "Dockerfile").write_text(f"FROM {image}\nCOPY root /\n")


def _debootstrap(to: Path, sources: str) -> None:
    listed = to / "sources.list"
    listed.write_text(sources)
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "info", "locale", "lintian")]
    documents = ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    mmdebstrap = proc.need("mmdebstrap", "mmdebstrap")
    options = ["--quiet", "--variant=minbase", "--aptopt=Acquire::Languages none", *left_out, *documents]
    proc.run([mmdebstrap, *options, apt.SUITE, to / "root.tar", listed], timeout=1800)
