"""The container image of each flavour: built, and put to work building modules."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound

from harness import bases, cache, containers, dockerd, flavours, proc, serving, share, wheels
from harness.bases import Base
from harness.errors import HarnessError
from harness.flavours import Flavour
from harness.wheels import REPOSITORY

REPOSITORY_NAME = "driverctr"
DEFAULT_DRIVER = "535.309.01"
# Stages of each Dockerfile: the classic builder makes all of them up to the one that is named.
WITHOUT_DRIVERCTR = "without-driverctr"
# The whole image that builds on the node; behind it are those of a precompiled one.
WHOLE = "driver"
PROPRIETARY = "proprietary"
PATCHES = REPOSITORY / "src/driverctr/patches"
# Increase it when `nvidia-driver build` writes something else for the same source.
MODULES_FORMAT = 1
IMAGES_KEPT = 3
# Seconds for a container that looks, and for one that builds modules on a machine that does much else.
LOOK_LIMIT_S = 300
BUILD_LIMIT_S = 3600


def build(
    driver_version: str = DEFAULT_DRIVER,
    target: str = "",
    flavour: Flavour = flavours.DEBIAN,
    base: Base | None = None,
) -> str:
    """Return the tag of the image for the sources as they are now, built if Docker has none.

    `target` names a stage of the Dockerfile; empty means the whole. `base` is what to start from, if not the one that
    tests use. Raises HarnessError with the end of the build's output if it fails.
    """
    client = dockerd.client()
    start = base or bases.of(flavour, driver_version)
    digest = cache.key(_key_parts(flavour, start, driver_version, target))
    words = [driver_version, *([] if flavour == flavours.DEBIAN else [flavour.name]), *([target] if target else [])]
    kind = f"{REPOSITORY_NAME}:{'-'.join(words)}-"
    tag = kind + digest
    with cache.lock(f"image-{digest}"):
        try:
            client.images.get(tag)
        except ImageNotFound:
            _build(tag, target, flavour, start, driver_version)
            prune(client, kind)
    return tag


def prune(client: docker.DockerClient, kind: str) -> None:
    """Remove all but the newest images whose tag is `kind` and a digest: each change of the sources makes another.

    An image that a container runs from stays.
    """
    of_kind = re.compile(re.escape(kind) + r"[0-9a-f]+")
    found = [
        (image.attrs["Created"], tag) for image in client.images.list() for tag in image.tags if of_kind.fullmatch(tag)
    ]
    for _, old in sorted(found, reverse=True)[IMAGES_KEPT:]:
        with contextlib.suppress(APIError):
            client.images.remove(old)


def _key_parts(flavour: Flavour, base: Base, driver_version: str, target: str) -> list[cache.KeyPart]:
    parts: list[cache.KeyPart] = [base.image, driver_version, target, REPOSITORY / flavour.dockerfile]
    parts += [part for pair in sorted(base.arguments.items()) for part in pair]
    parts += [part for pair in sorted(base.files.items()) for part in pair]
    parts += [REPOSITORY / "images" / name for name in flavour.folders]
    return [*parts, *([] if target == WITHOUT_DRIVERCTR else [*wheels.key_parts(), *share.key_parts()])]


def context(to: Path, flavour: Flavour = flavours.DEBIAN, files: Mapping[str, Path] | None = None) -> None:
    """Fill a folder with all that `docker build` needs: Dockerfile, scripts, wheels, manual page, and further files."""
    to.mkdir(parents=True, exist_ok=True)
    shutil.copy2(REPOSITORY / flavour.dockerfile, to)
    for name in flavour.folders:
        shutil.copytree(
            REPOSITORY / "images" / name,
            to / "images" / name,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for place in flavour.places:
        (to / place).mkdir(exist_ok=True)
    for place, path in (files or {}).items():
        if path.is_dir():
            shutil.copytree(path, to / place, dirs_exist_ok=True)
        else:
            shutil.copy2(path, to / place)
    wheels.collect(to / "wheels")
    share.lay_out(to / "share")


def _build(tag: str, target: str, flavour: Flavour, base: Base, driver_version: str) -> None:
    arguments = {
        "BASE_IMAGE": base.image,
        "DRIVER_VERSION": driver_version,
        **base.arguments,
        **_label_arguments(),
        **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
    }
    with tempfile.TemporaryDirectory() as scratch, serving.serving(base.served):
        context(Path(scratch), flavour, base.files)
        events = dockerd.client().api.build(
            path=scratch,
            dockerfile=flavour.dockerfile,
            tag=tag,
            target=target or WHOLE,
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
