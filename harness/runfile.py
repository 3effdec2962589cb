"""A run-file for tests: a self-extracting archive like NVIDIA's, with Debian's files and a stand-in installer.

Its userspace and module sources are the real ones; what it cannot prove is what NVIDIA's own nvidia-installer does.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import apt, cache, image, kernels, proc
from harness.wheels import REPOSITORY

STAND_IN = REPOSITORY / "images/stand-in-runfile"
LAYOUT = tuple(
    REPOSITORY / "images" / name
    for name in ("debian/nvidia_root.py", "common/debs.py", "common/driver_files.py", "common/layout.py")
)
SCRIPT = "nvidia-installer"
# Lines 3 to 8 of a .manifest: of kernel modules, which our build never asks the installer for.
UNUSED_LINES = ("", "nvidia", "", "", "kernel", "kernel/precompiled")
MANIFEST_TYPES = {
    "etc/OpenCL/vendors": "CUDA_ICD",
    "usr/share/glvnd/egl_vendor.d": "GLVND_EGL_ICD_JSON",
    "usr/share/vulkan/icd.d": "VULKAN_ICD_JSON",
    "usr/share/vulkan/implicit_layer.d": "EXPLICIT_PATH /usr/share/vulkan/implicit_layer.d",
}
TIMEOUT_S = 1800


def get(driver_version: str = image.DEFAULT_DRIVER, sources: Mapping[str, Path] | None = None) -> Path:
    """Return the run-file of a driver for this machine's architecture, made if the cache has none.

    `sources` are other module sources than the real ones, by folder: kernel, kernel-open. Raises HarnessError.
    """
    given = dict(sources or {})
    parts: list[cache.KeyPart] = [driver_version, platform.machine(), STAND_IN, *LAYOUT, Path(__file__)]
    for folder, tree in sorted(given.items()):
        parts += [folder, tree]
    made = cache.entry("runfile", parts, lambda to: _make(to, driver_version, given))
    cache.prune(made.parent, cache.LARGE_KEPT)
    return made / name(driver_version)


def name(driver_version: str, machine: str = "") -> str:
    """Return what NVIDIA calls the file of a driver version for a machine, by default this one."""
    return f"NVIDIA-Linux-{machine or platform.machine()}-{driver_version}.run"


def driver_files(driver_version: str) -> Path:
    """Return a folder with Debian's files of the driver, laid out as in the image, from the machine's own sources."""
    text = apt.sources(kernels.EXTRA_SUITES)
    made = cache.entry("driver-files", [driver_version, text, *LAYOUT], lambda to: _lay_out(to, driver_version, text))
    cache.prune(made.parent, cache.LARGE_KEPT)
    return made


def _lay_out(to: Path, driver_version: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        settings = Path(scratch, "apt.conf")
        pairs = [word.split("=", 1) for word in apt.options(text) if word != "-o"]
        settings.write_text("".join(f'{key} "{value}";\n' for key, value in pairs))
        for script in LAYOUT:
            shutil.copy2(script, scratch)
        environment = {**os.environ, "APT_CONFIG": str(settings)}
        argv: list[str | Path] = [sys.executable, Path(scratch, LAYOUT[0].name), driver_version, to]
        proc.run(argv, env=environment, timeout=TIMEOUT_S)


def _make(to: Path, driver_version: str, sources: Mapping[str, Path]) -> None:
    with tempfile.TemporaryDirectory(dir=to.parent) as scratch:
        content = Path(scratch, name(driver_version).removesuffix(".run"))
        content.mkdir()
        _fill(content, driver_version, sources)
        pack(content, to / name(driver_version), driver_version)


def pack(content: Path, to: Path, driver_version: str, machine: str = "") -> None:
    """Make a run-file of a folder; the machine and version it names need not be true."""
    program = _makeself()
    label = f"NVIDIA Accelerated Graphics Driver for Linux-{machine or platform.machine()} {driver_version}"
    environment = {
        **os.environ,
        "RUNFILE_VERSION": driver_version,
        "RUNFILE_ARCH": machine or platform.machine(),
        # Where it leaves the whole archive for a while: not in a /tmp that may be small.
        "TMPDIR": str(to.parent),
    }
    options: list[str | Path] = [
        "--quiet",
        "--gzip",
        "--complevel",
        "1",
        "--notemp",
        "--header",
        STAND_IN / "header.sh",
    ]
    proc.run(["sh", program, *options, content, to, label, f"./{SCRIPT}"], env=environment, timeout=TIMEOUT_S)


def _makeself() -> Path:
    """Return Debian's makeself, a shell script that needs no installation."""
    text = apt.sources()

    def unpack(to: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            (package,) = apt.download(["makeself"], Path(scratch), text)
            proc.run(["dpkg-deb", "--extract", package, to])

    return cache.entry("makeself", [text], unpack) / "usr/bin/makeself"


def _fill(content: Path, driver_version: str, sources: Mapping[str, Path]) -> None:
    """Lay the files out as in NVIDIA's archive, with their .manifest."""
    driver = driver_files(driver_version)
    described = json.loads((driver / "usr/share/driverctr/image.json").read_text())
    real = {Path(source["path"]).name: driver / source["path"].lstrip("/") for source in described["sources"]
            if source["version"] == driver_version}  # fmt: skip
    lines = list(_userspace(content, driver))
    for folder, tree in (dict(sources) or real).items():
        shutil.copytree(tree, content / folder)
        files = sorted(path for path in (content / folder).rglob("*") if path.is_file())
        lines += [f"{path.relative_to(content)} 0644 KERNEL_MODULE_SRC INHERIT_PATH_DEPTH:1" for path in files]
    shutil.copy2(STAND_IN / "nvidia-installer.sh", content / SCRIPT)
    (content / SCRIPT).chmod(0o755)
    lines.append(f"{SCRIPT} 0755 INSTALLER_BINARY")
    (content / "supported-gpus").mkdir()
    shutil.copy2(driver / "usr/share/nvidia/supported-gpus.json", content / "supported-gpus")
    lines.append("supported-gpus/supported-gpus.json 0644 DOCUMENTATION")
    shutil.copy2(driver / "usr/share/doc/nvidia-kernel-source/copyright", content / "LICENSE")
    lines.append("LICENSE 0644 DOCUMENTATION")
    head = (f"NVIDIA Accelerated Graphics Driver for Linux-{platform.machine()}", driver_version, *UNUSED_LINES)
    (content / ".manifest").write_text("\n".join([*head, *lines]) + "\n")


def _userspace(content: Path, driver: Path) -> Iterator[str]:
    """Put the userspace at the top of the archive, and yield the lines of its .manifest."""
    for path in sorted((driver / "usr/lib").glob("*-linux-gnu/lib*")):
        cuda = path.name.startswith("libcuda.")
        if path.is_symlink():
            target = path.readlink()
            yield f"{path.name} 0000 " + (
                f"CUDA_SYMLINK NATIVE / {target}" if cuda else f"UTILITY_LIB_SYMLINK NATIVE {target}"
            )
        else:
            os.link(path, content / path.name)
            yield f"{path.name} 0755 " + ("CUDA_LIB NATIVE /" if cuda else "UTILITY_LIB NATIVE")
    for path in sorted([*(driver / "usr/bin").iterdir(), *(driver / "usr/sbin").glob("*")]):
        os.link(path, content / path.name)
        yield f"{path.name} 0755 " + (
            "NVIDIA_MODPROBE /usr/bin" if path.name == "nvidia-modprobe" else "UTILITY_BINARY"
        )
    (content / "firmware").mkdir()
    for path in sorted((driver / "usr/lib/firmware/nvidia").rglob("*.bin")):
        os.link(path, content / "firmware" / path.name)
        yield f"firmware/{path.name} 0644 FIRMWARE INHERIT_PATH_DEPTH:1"
    for folder, kind in MANIFEST_TYPES.items():
        for path in sorted((driver / folder).iterdir()):
            os.link(path, content / path.name)
            yield f"{path.name} 0644 {kind}"
