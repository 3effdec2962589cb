"""Modules in packages with the names and places of Canonical's signed ones, signed with a key made here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness import aptrepo, cache, proc
from harness.kernels import Kernel

SUITE = "jammy"
VERSION = "6.1-1"
# Increase it when the packages get other names or files.
FORMAT = 1
# As theirs do: what lies in bits is linked and its signature appended, when the package is installed.
BUILD = """\
#!/bin/sh
set -e
for object in *.o; do cp "$object" "${object%.o}.ko"; done
"""
POSTINST = """\
#!/bin/sh
set -e
cd /usr/lib/modules/KERNEL/kernel/FOLDER/bits
sh ./BUILD
for module in *.ko; do cat "$module" "$module.sig" >"../$module"; rm "$module"; done
"""


def signed(kernel: Kernel, modules: Path) -> Path:
    """Return a folder with the modules of another, each signed as the kernel's own tool does it."""
    return cache.entry("signed-modules", [FORMAT, kernel.release, modules], lambda to: _sign(to, kernel, modules))


def repository(kernel: Kernel, modules: Path, branch: str) -> Path:
    """Return a folder with an apt repository of signed `modules`, and the key of its index, test.asc."""
    parts: list[cache.KeyPart] = [FORMAT, kernel.release, signed(kernel, modules), branch, BUILD, POSTINST]
    return cache.entry("canonical-repository", parts, lambda to: _make(to, kernel, modules, branch))


def _sign(to: Path, kernel: Kernel, modules: Path) -> None:
    tool = next(kernel.headers.glob("usr/lib/linux-kbuild-*/scripts/sign-file"))
    with tempfile.TemporaryDirectory() as scratch:
        key, certificate = Path(scratch, "key.pem"), Path(scratch, "certificate.pem")
        made: list[str | Path] = [
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=driverctr test",
            "-keyout",
            key,
            "-out",
            certificate,
        ]
        proc.run([proc.need("openssl", "openssl"), "req", "-x509", *made])
        for module in modules.glob("*.ko"):
            proc.run([tool, "sha512", key, certificate, module, to / module.name])


def _make(to: Path, kernel: Kernel, modules: Path, branch: str) -> None:
    name, release = f"nvidia-{branch.partition('-')[0]}srv", kernel.release
    place = Path("usr/lib/modules") / release / "kernel" / name / "bits"
    plain = {file.name: file.read_bytes() for file in modules.glob("*.ko")}
    whole = {file.name: file.read_bytes() for file in signed(kernel, modules).glob("*.ko")}
    objects = {f"{place}/{file.removesuffix('.ko')}.o": content for file, content in plain.items()}
    signatures = {f"{place}/{file}.sig": whole[file][len(content) :] for file, content in plain.items()}
    postinst = POSTINST.replace("KERNEL", release).replace("FOLDER", name).encode()
    packages: dict[str, tuple[Mapping[str, bytes], str]] = {
        f"linux-objects-nvidia-{branch}-{release}": ({**objects, f"{place}/BUILD": BUILD.encode()}, ""),
        f"linux-signatures-nvidia-{release}": (signatures, ""),
    }
    packages[f"linux-modules-nvidia-{branch}-{release}"] = ({"DEBIAN/postinst": postinst}, ", ".join(packages))
    made = [_pack(to / "work", package, files, depends) for package, (files, depends) in packages.items()]
    aptrepo.publish(to / "repository", made, aptrepo.make_key(to, "test"), SUITE)
    shutil.copy2(to / "test.asc", to / "repository")
    shutil.rmtree(to / "work")


def _pack(work: Path, name: str, files: Mapping[str, bytes], depends: str) -> Path:
    tree = work / name
    for place, content in files.items():
        file = tree / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755)
    control = tree / "DEBIAN/control"
    control.parent.mkdir(parents=True, exist_ok=True)
    fields = {
        "Package": name,
        "Version": VERSION,
        "Architecture": "amd64",
        "Maintainer": "driverctr <driverctr@driverctr.example>",
        "Depends": depends,
        "Description": "made by a test of driverctr",
    }
    control.write_text("".join(f"{field}: {value}\n" for field, value in fields.items() if value))
    made = work / f"{name}_{VERSION}_amd64.deb"
    proc.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made])
    return made
