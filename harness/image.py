"""The container image: built, exported as a root file system, and put to work building modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound

from harness import apt, cache, containers, dockerd, foreign, kernels, proc, wheels
from harness.errors import HarnessError
from harness.wheels import REPOSITORY

DOCKERFILE = "Dockerfile.debian"
SCRIPTS = ("images/common", "images/debian")
REPOSITORY_NAME = "driverctr"
DEFAULT_DRIVER = "535.309.01"
WITHOUT_DRIVERCTR = "without-driverctr"
PROPRIETARY = "proprietary"
PATCHES = REPOSITORY / "src/driverctr/patches"
# Increase it when `nvidia-driver build` writes something else for the same source.
MODULES_FORMAT = 1
ROOTS_KEPT = 4
SAVED_KEPT = 2
ROOT_MIN_AGE_S = 3600
# Seconds for a container that looks, and for one that builds modules on a machine that does much else.
LOOK_LIMIT_S = 300
BUILD_LIMIT_S = 3600


@dataclass(frozen=True)
class Base:
    """What the image starts from, and the package sources that go with it."""

    image: str
    sources: str


def build(driver_version: str = DEFAULT_DRIVER, target: str = "") -> str:
    """Return the tag of the image for the sources as they are now, built if Docker has none.

    `target` names a stage of the Dockerfile; empty means the whole. Raises HarnessError with the end of the
    build's output if it fails.
    """
    client = dockerd.client()
    base = _base()
    parts: list[str | Path] = [
        base.image,
        base.sources,
        driver_version,
        target,
        REPOSITORY / DOCKERFILE,
        *(REPOSITORY / folder for folder in SCRIPTS),
    ]
    digest = cache.key([*parts, *([] if target == WITHOUT_DRIVERCTR else wheels.key_parts())])
    tag = f"{REPOSITORY_NAME}:{driver_version}-{target + '-' if target else ''}{digest}"
    with cache.lock(f"image-{digest}"):
        try:
            client.images.get(tag)
        except ImageNotFound:
            _build(tag, target, base, driver_version)
    return tag


def context(to: Path) -> None:
    """Fill a folder with all that `docker build` needs: the Dockerfile, its scripts and the wheels."""
    to.mkdir(parents=True, exist_ok=True)
    shutil.copy2(REPOSITORY / DOCKERFILE, to)
    for folder in SCRIPTS:
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, to / folder, dirs_exist_ok=True, ignore=compiled)
    wheels.collect(to / "wheels")


def _build(tag: str, target: str, base: Base, driver_version: str) -> None:
    arguments = {
        "BASE_IMAGE": base.image,
        "APT_SOURCES": base.sources,
        "DRIVER_VERSION": driver_version,
        **_label_arguments(),
        **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
    }
    with tempfile.TemporaryDirectory() as scratch:
        context(Path(scratch))
        events = dockerd.client().api.build(
            path=scratch,
            dockerfile=DOCKERFILE,
            tag=tag,
            target=target or None,
            buildargs=arguments,
            network_mode="host",
            rm=True,
            forcerm=True,
            decode=True,
        )
        _follow(events)


def _follow(events: Any) -> None:
    """Read the build to its end: steps go to standard error, the whole output into the error if it fails."""
    output: list[str] = []
    for event in events:
        said = event.get("stream", "")
        output.append(said)
        if said.startswith("Step "):
            print(said.rstrip(), file=sys.stderr, flush=True)
        if "error" in event:
            raise HarnessError(f"docker build: {event['error']}\n{proc.tail(''.join(output))}")


def _label_arguments() -> dict[str, str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return {
        "VERSION": project["version"],
        "REVISION": _git("rev-parse", "HEAD") or "unknown",
        "SOURCE": _git("config", "--get", "remote.origin.url") or "unknown",
        "CREATED": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _git(*words: str) -> str:
    """Return the output of a git command, empty where there is no git, no commit or no such setting."""
    try:
        return proc.run(["git", "-C", REPOSITORY, *words]).strip()
    except HarnessError:
        return ""


def _base() -> Base:
    """Return a base image made from the machine's own archive where that is Debian 12's, else Docker's own."""
    if os.environ.get(apt.SOURCES_VARIABLE) is None and not apt.configured():
        return Base(foreign.IMAGE, "")
    sources = apt.sources(kernels.EXTRA_SUITES)
    made = cache.entry("base", [apt.SUITE, sources], lambda to: _debootstrap(to, sources))
    image = f"{REPOSITORY_NAME}-base:{made.name}"
    client = dockerd.client()
    with cache.lock(f"base-image-{made.name}"):
        try:
            client.images.get(image)
        except ImageNotFound:
            name, _, tag = image.partition(":")
            client.api.import_image(src=str(made / "root.tar"), repository=name, tag=tag)
    return Base(image, sources)


def _debootstrap(to: Path, sources: str) -> None:
    listed = to / "sources.list"
    listed.write_text(sources)
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "info", "locale", "lintian")]
    documents = ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    mmdebstrap = proc.need("mmdebstrap", "mmdebstrap")
    options = ["--quiet", "--variant=minbase", "--aptopt=Acquire::Languages none", *left_out, *documents]
    proc.run([mmdebstrap, *options, apt.SUITE, to / "root.tar", listed], timeout=1800)


def export_rootfs(tag: str) -> Path:
    """Return the folder with the image's root file system, as a container would see it. Needs root.

    Owners, modes, extended attributes and device nodes are kept. Nothing may write below it: it is shared.
    """
    if os.geteuid() != 0:
        raise HarnessError("only root can unpack an image with its owners and devices", "Run this as root")
    made = cache.entry("rootfs", [identity(tag)], lambda to: _unpack(tag, to / "root"))
    _prune(made)
    return made / "root"


def identity(tag: str) -> str:
    """Return the digest of the image's configuration, which names the content of each of its layers."""
    return str(dockerd.client().images.get(tag).id)


def saved(tag: str) -> Path:
    """Return the file that `docker save` makes of the image."""
    made = cache.entry("saved-image", [tag, identity(tag)], lambda to: _save(tag, to / "image.tar"))
    cache.prune(made.parent, SAVED_KEPT)
    return made / "image.tar"


def _save(tag: str, to: Path) -> None:
    with to.open("wb") as archive:
        for chunk in dockerd.client().images.get(tag).save(named=True):
            archive.write(chunk)


def _unpack(tag: str, root: Path) -> None:
    root.mkdir()
    container = dockerd.client().containers.create(tag)
    argv: list[str | Path] = [
        "tar",
        "--extract",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
        "--directory",
        root,
    ]
    try:
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as tar:
            assert tar.stdin is not None
            exported: Any = container.export()  # bytes; its type stub says str
            for chunk in exported:
                tar.stdin.write(chunk)
    finally:
        container.remove()
    if tar.returncode != 0:
        raise HarnessError(f"tar could not unpack {tag}: exit {tar.returncode}")


def _prune(in_use: Path) -> None:
    """Remove roots of old builds: each takes 700 MB, and each change of the sources makes another."""
    roots = sorted(in_use.parent.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in roots[ROOTS_KEPT:]:
        if path != in_use and time.time() - path.stat().st_mtime > ROOT_MIN_AGE_S:
            shutil.rmtree(path, ignore_errors=True)


def description(tag: str) -> dict[str, Any]:
    """Return what the image says about itself in /usr/share/driverctr/image.json."""
    shown = containers.output(tag, ["cat", "/usr/share/driverctr/image.json"], LOOK_LIMIT_S)
    record: dict[str, Any] = json.loads(shown)
    return record


def real_modules(release: str, module_type: str = PROPRIETARY, driver_version: str = DEFAULT_DRIVER) -> Path:
    """Return a folder with what `nvidia-driver build` makes for a kernel release, built natively in a container.

    `module_type` is proprietary or open. Raises HarnessError with the end of the build's output if it fails.
    """
    tag = build(driver_version)
    digests = [source["sha256"] for source in description(tag)["sources"] if source["type"] == module_type]
    if not digests:
        raise HarnessError(f"the image for {driver_version} has no {module_type} module source")
    patches = sorted(PATCHES.glob("*.patch"))
    parts = [MODULES_FORMAT, driver_version, module_type, release, *digests, *patches]
    return cache.entry("real-modules", parts, lambda to: build_modules(tag, to, release, module_type))


def build_modules(
    tag: str, to: Path, release: str, module_type: str, mounts: Mapping[Path, str] | None = None, version: str = ""
) -> None:
    """Run `nvidia-driver build` in a container, into the folder `to`.

    `mounts` are further folders and files, seen read-only; `version` is the driver's, by default the image's. Raises
    HarnessError with the end of the build's output if it fails.
    """
    others = {str(path): {"bind": place, "mode": "ro"} for path, place in (mounts or {}).items()}
    containers.output(
        tag,
        ["nvidia-driver", "build", "--kernel", release, "--output", "/output"],
        BUILD_LIMIT_S,
        environment={"KERNEL_MODULE_TYPE": module_type, **({"DRIVER_VERSION": version} if version else {})},
        volumes={str(to): {"bind": "/output", "mode": "rw"}, **others},
        network_mode="host",
    )
