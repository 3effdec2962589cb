"""Signed dnf repositories with the names of NVIDIA's driver packages, and in them some of Debian's files of it."""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import cache, rpmrepo, runfile
from harness.rpmrepo import Package

# Increase it when the packages get other names or files.
FORMAT = 1
RELEASE = "1.el9"
KERNEL = "5.14.0-427.13.1.el9_4.x86_64"
MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-peermem", "nvidia-drm")
SIGNATURE_MARK = "~Module signature appended~\n"
# Places in the driver's stage by those in NVIDIA's packages of branch 535; what is big and proves nothing is left out.
LIBRARIES, LICENCE = "usr/lib/x86_64-linux-gnu/", "usr/share/doc/nvidia-kernel-source/copyright"
PLACES = {
    LIBRARIES: "usr/lib64/",
    LICENCE: "usr/share/licenses/nvidia-driver/LICENSE",
    "usr/sbin/": "usr/bin/",
    "usr/lib/firmware/": "lib/firmware/",
    "usr/share/nvidia/": "usr/share/doc/nvidia-driver/",
}
USERSPACE = (
    ("nvidia-driver", ("usr/lib/firmware/*", "usr/share/nvidia/*", LICENCE)),
    ("nvidia-driver-cuda", ("etc/OpenCL/*", "usr/bin/nvidia-smi", "usr/bin/nvidia-cuda-mps-*")),
    ("nvidia-driver-cuda-libs", ("*/libcuda.so*", "*/libnvcuvid.so*")),
    ("nvidia-driver-libs", ("*/libnvidia-cfg.so*", "*/libnvidia-tls.so*", "usr/share/glvnd/*", "usr/share/vulkan/*")),
    ("nvidia-driver-NVML", ("*/libnvidia-ml.so*",)),
    ("nvidia-driver-NvFBCOpenGL", ("*/libnvidia-fbc.so*",)),
    ("nvidia-kmod-common", ()),
    ("nvidia-persistenced", ("usr/*bin/nvidia-persistenced",)),
)
MODPROBE = ("nvidia-modprobe", ("usr/*bin/nvidia-modprobe",))
SOURCE = "kmod-nvidia-latest-dkms"
# As NVIDIA's: objects and detached signatures, of which the installation makes modules.
OBJECTS = "usr/lib64/nvidia/x86_64"
LINK = """\
mkdir -p /lib/modules/KERNEL/extra/drivers/video/nvidia
cd /OBJECTS
for object in *.o; do
    cat "$object" "${object%.o}.sig" >"/lib/modules/KERNEL/extra/drivers/video/nvidia/${object%.o}.ko"
done"""


@dataclass(frozen=True)
class Repositories:
    """A folder with repositories by name, and the public key of the sound ones there.

    good has all but nvidia-modprobe, which is in modprobe; unsigned and other-key have it with that fault.
    """

    folder: Path
    key: Path


def repositories(driver_version: str) -> Repositories:
    """Return the repositories of a driver, made if the cache has none. Raises HarnessError."""
    driver = runfile.driver_files(driver_version)
    parts: list[cache.KeyPart] = [FORMAT, driver_version, driver.name, Path(__file__)]
    made = cache.entry("nvidia-rpms", parts, lambda to: _make(to, driver, driver_version))
    return Repositories(made / "repositories", made / "repositories" / rpmrepo.PUBLIC_KEY)


def _make(to: Path, driver: Path, version: str) -> None:
    key = rpmrepo.new_key(to / "key")
    (to / "repositories").mkdir()
    shutil.copy2(key.public, to / "repositories")
    with tempfile.TemporaryDirectory(dir=to.parent) as scratch:
        other = rpmrepo.new_key(Path(scratch, "other"), "somebody else")
        packages = [_package(Path(scratch), driver, version, *row) for row in USERSPACE]
        packages.append(_shell(Path(scratch)))
        packages += [_source(Path(scratch), driver, version), _modules(Path(scratch), version)]
        rpmrepo.make(to / "repositories/good", packages, key)
        modprobe = _package(Path(scratch), driver, version, *MODPROBE)
        for name, signer in (("modprobe", key), ("unsigned", None), ("other-key", other)):
            rpmrepo.make(to / "repositories" / name, [modprobe], signer)


def _package(work: Path, driver: Path, version: str, name: str, patterns: tuple[str, ...]) -> Package:
    tree = work / name
    tree.mkdir()
    for path in driver.rglob("*"):
        place = str(path.relative_to(driver))
        if not path.is_dir() and any(fnmatch.fnmatch(place, pattern) for pattern in patterns):
            start = next((start for start in PLACES if place.startswith(start)), "")
            target = tree / (PLACES.get(start, "") + place[len(start) :])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
    return Package(name, version, RELEASE, tree)


def _shell(work: Path) -> Package:
    """What a package with a script needs, and the test base's rpm does not know of."""
    tree = work / "bash"
    tree.mkdir()
    return Package("bash", "5", RELEASE, tree, provides=("/bin/sh",))


def _source(work: Path, driver: Path, version: str) -> Package:
    tree = work / SOURCE
    source = driver / f"opt/driverctr/source/nvidia-{version}/kernel"
    shutil.copytree(source, tree / f"usr/src/nvidia-{version}", symlinks=True)
    return Package(SOURCE, version, RELEASE, tree)


def _modules(work: Path, version: str) -> Package:
    base, dist = KERNEL.removesuffix(".x86_64").split(".el", 1)
    tree = work / "kmod"
    (tree / OBJECTS).mkdir(parents=True)
    for module in MODULES:
        (tree / OBJECTS / f"{module}.o").write_text(f"{module} {version}\n")
        (tree / OBJECTS / f"{module}.sig").write_text(f"signature{SIGNATURE_MARK}")
    post = LINK.replace("KERNEL", KERNEL).replace("OBJECTS", OBJECTS)
    return Package(f"kmod-nvidia-{version}-{base}", version, f"2.el{dist}", tree, post=post)
