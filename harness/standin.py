"""The stand-in driver as a container image: its modules and programs laid over the built image's root."""

from __future__ import annotations

import compileall
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode

from harness import cache, flavours, image, imagefiles, kernels, proc, vm, vmhost
from harness.vm import Share, VmResult, VmSpec
from harness.wheels import REPOSITORY

MODULES = vmhost.IMAGES / "stand-in"
PROGRAMS = vmhost.IMAGES / "stand-in-programs"
SOURCES = REPOSITORY / "src/driverctr"
GUEST = REPOSITORY / "tests/vm/guest"
# Where the image has NVIDIA's own source of the same driver version.
SOURCE_IN_IMAGE = f"/opt/driverctr/source/nvidia-{image.DEFAULT_DRIVER}/kernel"
DESCRIPTION_IN_IMAGE = "/usr/share/driverctr/image.json"
TIMEOUT_S = 2400.0


@dataclass(frozen=True)
class Other:
    """The stand-in driver in another version, or another build of it: a file, what is in it, and what is instead."""

    version: str
    change: tuple[str, str, str]


OTHERS = {
    "former": Other("470.223.02", ("Kbuild", image.DEFAULT_DRIVER, "470.223.02")),
    "broken": Other(image.DEFAULT_DRIVER, ("stand-in.h", "static int fail_init;", "static int fail_init = 19;")),
}
"""By the name under which a scenario finds the modules, /mnt/NAME."""


def module_set(release: str) -> Path:
    """Return a folder with what `nvidia-driver build` makes of the stand-in's source, built natively in a container."""
    key: list[cache.KeyPart] = [image.MODULES_FORMAT, image.DEFAULT_DRIVER, release, MODULES]
    return cache.entry(
        "stand-in-modules",
        key,
        # Whichever image builds it, the modules are the same: only where there are none, an image is built for them.
        lambda to: image.build_modules(image.build(), to, release, image.PROPRIETARY, {MODULES: SOURCE_IN_IMAGE}),
    )


def other_modules(release: str, other: Other) -> Path:
    """Return a folder with the same of another source: built in a machine it would take minutes each time."""
    key: list[cache.KeyPart] = [image.MODULES_FORMAT, other.version, *other.change, release, MODULES]
    return cache.entry("stand-in-modules", key, lambda to: _build_other(to, release, other))


def _build_other(to: Path, release: str, other: Other) -> None:
    file, former, now = other.change
    tag = image.build()
    known = json.loads((imagefiles.export_rootfs(tag) / DESCRIPTION_IN_IMAGE[1:]).read_text())
    of_image = {"type": image.PROPRIETARY, "version": other.version, "path": SOURCE_IN_IMAGE, "sha256": "47" * 32}
    with tempfile.TemporaryDirectory() as folder:
        source, described = Path(folder, "kernel"), Path(folder, "image.json")
        shutil.copytree(MODULES, source)
        (source / file).write_text((source / file).read_text().replace(former, now))
        described.write_text(json.dumps({**known, "driver_version": other.version, "sources": [of_image]}))
        mounts = {source: SOURCE_IN_IMAGE, described: DESCRIPTION_IN_IMAGE}
        image.build_modules(tag, to, release, image.PROPRIETARY, mounts, other.version)


def layer(release: str) -> Path:
    """Return a folder to be laid over the image's root: module set and programs under the names of NVIDIA's."""
    modules = module_set(release)
    return cache.entry("stand-in-layer", [str(modules), PROGRAMS], lambda to: _make_layer(to, modules))


def _make_layer(to: Path, modules: Path) -> None:
    (to / "usr/bin").mkdir(parents=True)
    daemon = to / "usr/bin/nvidia-persistenced"
    # Static: it must run whatever libc the image brings.
    proc.run(["gcc-12", "-static", "-O1", "-s", "-o", daemon, PROGRAMS / "nvidia-persistenced.c"])
    smi = to / "usr/bin/nvidia-smi"
    shutil.copyfile(PROGRAMS / "nvidia-smi.sh", smi)
    smi.chmod(0o755)
    shutil.copytree(modules, to / "opt/driverctr/modules")


def sources_layer() -> Path:
    """Return a folder to be laid over the root of an older image: driverctr as it is in the checkout, compiled."""
    return cache.entry("sources-layer", [SOURCES], _copy_sources)


def _copy_sources(to: Path) -> None:
    target = to / "opt/driverctr/lib/driverctr"
    shutil.copytree(SOURCES, target, ignore=shutil.ignore_patterns("__pycache__"))
    # `dev` has compiled files go elsewhere; without one beside a source that of the older image would be run.
    elsewhere, sys.pycache_prefix = sys.pycache_prefix, None
    try:
        compileall.compile_dir(target, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    finally:
        sys.pycache_prefix = elsewhere


def newest_root() -> Path:
    """Return Debian's newest image root in the cache, whatever sources it was built from; without any, it is built.

    Not that of a precompiled image, which cannot build.
    """
    found = [path for path in (cache.root() / "rootfs").glob("[0-9a-f]*/root") if _is_debian(path)]
    roots = sorted(found, key=lambda path: path.parent.stat().st_mtime)
    return roots[-1] if roots else imagefiles.export_rootfs(image.build())


def _is_debian(root: Path) -> bool:
    described = root / DESCRIPTION_IN_IMAGE[1:]
    if not described.is_file():
        return False
    known = json.loads(described.read_text())
    return known["distribution"] == flavours.DEBIAN.name and not known.get("kernel_release")


def scenario_spec(
    rootfs: Path, kernel: str = kernels.DEFAULT, *, sources: bool = False, **more: Path | Share
) -> VmSpec:
    """Return the host that tests/vm/guest/scenario.sh expects; `sources` lays the checkout over an older root.

    `more` are further shares, by name.
    """
    release = kernels.get(kernel).release
    shares: dict[str, Path | Share] = {"guest": GUEST, "layer": layer(release), "stand-in": MODULES}
    shares |= {name: other_modules(release, other) for name, other in OTHERS.items()}
    if sources:
        shares["sources"] = sources_layer()
    return VmSpec(kernel=kernel, shares={**shares, **more}, images={"driver": rootfs}, timeout=TIMEOUT_S)


def run_scenario(name: str, spec: VmSpec, runtime: str = "docker", cases: str = "", cycles: int = 0) -> VmResult:
    """Run tests/vm/guest/scenario_NAME.sh.

    `cases` is a pattern of the titles of those wanted, empty for all; `cycles` how often one that repeats does so, 0
    for its own number.
    """
    settings = [f"CASES={cases}", *([f"CYCLES={cycles}"] if cycles else [])]
    return vm.run(spec, ["env", *settings, "bash", f"/mnt/guest/scenario_{name}.sh", runtime], live=True)
