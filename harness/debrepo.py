"""A signed apt repository with Ubuntu's package names: kernel headers and a driver, with Debian's files in them."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness import aptrepo, cache, kernels, proc, runfile

# Where Ubuntu has its newest kernels; driverctr asks such suites first, Debian's too.
SUITE = "jammy-updates"
# Increase it when the packages get other names or files.
FORMAT = 4
FORMAT_OF_KEY = 1
# Above Debian's own packages, of which one has the same name.
HEADERS_VERSION = "99.0-1"
# Ubuntu's packages of a server driver, and what each has of the files that the driver's stage lays out; the first that
# fits takes a file. BRANCH and VERSION stand for the driver's.
USERSPACE = (
    ("libnvidia-cfg1-BRANCH-server", ("*/libnvidia-cfg.so*",)),
    ("libnvidia-decode-BRANCH-server", ("*/libnvcuvid.so*",)),
    ("libnvidia-encode-BRANCH-server", ("*/libnvidia-encode.so*", "*/libnvidia-opticalflow.so*")),
    ("libnvidia-fbc1-BRANCH-server", ("*/libnvidia-fbc.so*",)),
    ("libnvidia-extra-BRANCH-server", ("*/libnvidia-ngx.so*",)),
    (
        "libnvidia-compute-BRANCH-server",
        (
            "*/libcuda*.so*",
            "*/libnvidia-ml.so*",
            "*/libnvidia-nvvm.so*",
            "*/libnvidia-opencl.so*",
            "*/libnvidia-pkcs11*.so*",
            "*/libnvidia-ptxjitcompiler.so*",
            "etc/OpenCL/*",
        ),
    ),
    ("libnvidia-gl-BRANCH-server", ("*.so*", "usr/share/glvnd/*", "usr/share/vulkan/*")),
    ("nvidia-compute-utils-BRANCH-server", ("usr/bin/nvidia-persistenced", "usr/bin/nvidia-cuda-mps-*")),
    ("nvidia-modprobe", ("usr/bin/nvidia-modprobe",)),
    ("nvidia-utils-BRANCH-server", ("usr/bin/*", "usr/sbin/*")),
    ("nvidia-firmware-BRANCH-server-VERSION", ("usr/lib/firmware/*",)),
    ("nvidia-driver-BRANCH-server", ("usr/share/nvidia/*",)),
)
SOURCES = (
    ("nvidia-kernel-source-BRANCH-server", "kernel"),
    ("nvidia-kernel-source-BRANCH-server-open", "kernel-open"),
)
SOURCE_PLACE = "usr/src/nvidia-srv-VERSION"


@dataclass(frozen=True)
class Repository:
    """A folder to serve, and the key its index is signed with, as text."""

    folder: Path
    key: str


def repository(driver_version: str, kernel: str = kernels.DEFAULT) -> Repository:
    """Return the repository with the headers of a kernel and the packages of a driver, made if the cache has none."""
    driver, headers = runfile.driver_files(driver_version), kernels.get(kernel)
    parts: list[cache.KeyPart] = [FORMAT, driver_version, headers.release, driver.name, repr((USERSPACE, SOURCES))]
    # Apart from the packages: it lies in the image, which need not change with them.
    signing = cache.entry("ubuntu-key", [FORMAT_OF_KEY], _make_key)
    key = aptrepo.Key(signing / "test.gnupg", signing / "test.asc")
    parts.append(key.public)
    made = cache.entry("ubuntu-repository", parts, lambda to: _make(to, key, driver, driver_version, headers))
    cache.prune(made.parent, cache.LARGE_KEPT)
    return Repository(made / "repository", key.public.read_text())


def _make_key(to: Path) -> None:
    key = aptrepo.make_key(to, "test")
    # The agent knows the folder by the name that it has now, and would not find the key when it is published.
    proc.run(["gpgconf", "--homedir", key.home, "--kill", "gpg-agent"])


def _make(to: Path, key: aptrepo.Key, driver: Path, driver_version: str, kernel: kernels.Kernel) -> None:
    work = to / "work"
    packages = [*_headers(work, kernel), *_driver(work, driver, driver_version)]
    aptrepo.publish(to / "repository", packages, key, SUITE)
    shutil.rmtree(work)


def _headers(work: Path, kernel: kernels.Kernel) -> Iterable[Path]:
    """Two packages, as of Ubuntu: what is of the flavour, and what all flavours of the ABI share."""
    release = kernel.release
    shared = f"linux-headers-{release.removesuffix(kernels.FLAVOUR)}"
    own = (f"usr/src/linux-headers-{release}", f"usr/lib/modules/{release}")
    trees = {f"linux-headers-{release}": work / "own", shared: work / "shared"}
    for path in (*kernel.headers.glob("usr/src/*"), *kernel.headers.glob("usr/lib/*"), kernel.headers / own[1]):
        name = str(path.relative_to(kernel.headers))
        if name != "usr/lib/modules":
            # Ubuntu 22.04's packages have modules in /lib.
            place = name.replace("usr/lib/modules", "lib/modules")
            _copy(path, (work / "own" if name in own else work / "shared") / place)
    for name, tree in trees.items():
        yield aptrepo.pack(
            tree, work, name, HEADERS_VERSION, shared if name != shared else "", compression=aptrepo.NOT_AT_ALL
        )


def _driver(work: Path, laid_out: Path, version: str) -> Iterable[Path]:
    branch = version.partition(".")[0]

    def named(text: str) -> str:
        return text.replace("BRANCH", branch).replace("VERSION", version)

    left = [path for path in sorted(laid_out.rglob("*")) if path.is_symlink() or path.is_file()]
    trees: dict[str, Path] = {}
    for package, patterns in USERSPACE:
        tree = trees[named(package)] = work / named(package)
        for path in list(left):
            name = str(path.relative_to(laid_out))
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns) and not name.startswith("opt/"):
                _copy(path, tree / name)
                left.remove(path)
    for package, folder in SOURCES:
        tree = trees[named(package)] = work / named(package)
        for path in laid_out.glob(f"opt/driverctr/source/*/{folder}"):
            _copy(path, tree / named(SOURCE_PLACE))
            _copy(path.parent / "LICENSE", tree / "usr/share/doc" / named(package) / "copyright")
    for name, tree in trees.items():
        yield aptrepo.pack(tree, work, name, f"{version}-0ubuntu0.22.04.1", compression=aptrepo.NOT_AT_ALL)


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(path, to, follow_symlinks=False)
