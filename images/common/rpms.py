"""Packages of rpm: found and fetched by dnf, their signatures checked by rpmkeys, unpacked but not installed."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from driver_files import BuildError, read_release

REPOSITORIES = Path("/etc/yum.repos.d")
# Seconds without a byte until a key's server is given up.
TIMEOUT_S = 60
# Without module_hotfixes dnf hides the packages of module streams that are not enabled, which NVIDIA's are on RHEL 8, 9
# (dnf.conf(5)).
DNF = ("dnf", "--quiet", "--assumeyes", "--setopt=*.module_hotfixes=1", "--setopt=install_weak_deps=False")
# A signature is demanded, and nothing is left unchecked (rpm's macros.in); rpm before 4.14.2 does not know these.
STRICT = ("--define", "_pkgverify_level signature", "--define", "_pkgverify_flags 0x0")
# Words of rpmkeys, as in src/driverctr/packages/rpm.py, which has not come into this stage of a build.
GOOD = re.compile(r": OK( \([0-9a-f]+\))?$")
SIGNATURE = re.compile(r"signature,? ", re.IGNORECASE)
# Lines about the payload too: its digest, which the signed header holds, or an older signature of it all.
OF_PAYLOAD = re.compile(r"^(Payload |(V\d |OpenPGP |RSA |DSA )\S* ?[^:]*signature)", re.IGNORECASE)
UNPACK = 'rpm2cpio "$1" | cpio --extract --make-directories --preserve-modification-time --no-preserve-owner --quiet'


@dataclass(frozen=True)
class Offer:
    """One package that a repository has."""

    name: str
    epoch: str
    version: str
    release: str
    architecture: str

    @property
    def spec(self) -> str:
        """What dnf calls this one package and no other."""
        return f"{self.name}-{self.epoch}:{self.version}-{self.release}.{self.architecture}"

    @property
    def file_name(self) -> str:
        """The name of its file, where the repository keeps to the custom."""
        return f"{self.name}-{self.version}-{self.release}.{self.architecture}.rpm"

    @property
    def order(self) -> tuple[tuple[int, ...], int]:
        """A sort key: NVIDIA's versions are numbers and dots, their releases begin with a number."""
        return numbers(self.version), next(iter(numbers(self.release)), 0)


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers in a text."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def offers(names: Iterable[str]) -> list[Offer]:
    """Return what the enabled repositories have under these names (patterns too) for this machine, the oldest first."""
    fields = "%{name} %{epoch} %{version} %{release} %{arch}\n"
    command = [*DNF, "repoquery", "--available", "--showduplicates", f"--queryformat={fields}", *names]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {Offer(*line.split()) for line in shown.splitlines() if len(line.split()) == 5}
    fitting = (one for one in found if one.architecture in (os.uname().machine, "noarch"))
    return sorted(fitting, key=lambda one: (one.name, one.order))


def fetch(wanted: Sequence[Offer], folder: Path) -> dict[str, Path]:
    """Download packages without what they depend on, and check their signatures; returns the file of each by name."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([*DNF, "download", f"--destdir={folder}", *(one.spec for one in wanted)], check=True)
    files = {}
    keys = keyring(folder / "keys")
    for one in wanted:
        file = folder / one.file_name
        if not file.is_file():
            has = ", ".join(sorted(path.name for path in folder.glob("*.rpm"))) or "nothing"
            raise BuildError(f"dnf download brought no {file.name}, but {has}", "See its words above")
        check(file, keys)
        files[one.name] = file
    return files


def keyring(folder: Path, listed: Path = REPOSITORIES) -> Path:
    """Return a database of rpm with the keys that enabled repositories name, and no others."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, address in enumerate(key_addresses(listed)):
        file = Path(address[len("file://") :]) if address.startswith("file://") else folder / f"{number}.key"
        if not address.startswith("file://"):
            try:
                with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
                    file.write_bytes(answer.read())
            except (OSError, ValueError) as error:
                print(f"the key {address} cannot be fetched, what it signed is refused: {error}", flush=True)
                continue
        if subprocess.run(["rpmkeys", "--dbpath", folder, "--import", file], check=False).returncode != 0:
            print(f"the key {address} is not taken, what it signed is refused", flush=True)
    return folder


def key_addresses(listed: Path) -> list[str]:
    """Return what gpgkey= of the enabled repositories says, each once."""
    found = []
    for file in sorted(listed.glob("*.repo")):
        parsed = configparser.ConfigParser(interpolation=None, strict=False)
        parsed.read(file)
        for name in parsed.sections():
            if parsed[name].get("enabled", "1").strip().lower() not in ("0", "false", "no", "off"):
                words = re.split(r"[\s,]+", parsed[name].get("gpgkey", ""))
                found += [filled(word) for word in words if word]
    return list(dict.fromkeys(found))


def filled(text: str) -> str:
    """Return a text of a repository file with dnf's variables for this machine; others stay, as dnf leaves them."""
    machine, (major, _, minor) = os.uname().machine, read_release().version.partition(".")
    values = {"basearch": machine, "arch": machine, "releasever": major}
    values |= {"releasever_major": major, "releasever_minor": minor}
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda hit: values.get(hit[1] or hit[2], hit[0]), text)


def check(file: Path, keys: Path) -> None:
    """Raise BuildError unless one of the keys signed a package and all of its digests are right."""
    argv: list[str | Path] = ["rpmkeys", "--dbpath", keys, "--checksig", "--verbose", *STRICT, file]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )
    if why := fault(done.stdout, done.returncode):
        raise BuildError(
            f"{file.name} is refused: {why}",
            "Name the key of who signs it as gpgkey= of its repository (REPO_FILES)",
            done.stdout,
        )


def fault(said: str, status: int) -> str:
    """Return what is wrong with a package by rpmkeys' verbose words and exit status; "" if nothing is.

    `dnf download` looks at no signature, and rpmkeys exits with 0 for a package without one: every line counts.
    """
    lines = [line.strip() for line in said.splitlines() if line[:1].isspace() and line.strip()]
    wrong = [line for line in lines if not GOOD.search(line) and not line.endswith(": NOTFOUND")]
    if unknown := [line for line in wrong if line.endswith(": NOKEY")]:
        return f"it is signed with another key: {unknown[0]}"
    if wrong:
        return "; ".join(wrong)
    if not any(SIGNATURE.search(line) and GOOD.search(line) for line in lines):
        return "it is not signed" if lines else "rpmkeys refuses it"
    if not any(OF_PAYLOAD.search(line) and GOOD.search(line) for line in lines):
        return "its signature does not cover the files in it"
    return "" if status == 0 else "rpmkeys refuses it"


def unpack(file: Path, into: Path) -> Path:
    """Put a package's files below a folder; no script of it runs."""
    into.mkdir(parents=True, exist_ok=True)
    subprocess.run(["bash", "-o", "pipefail", "-c", UNPACK, "unpack", file.absolute()], cwd=into, check=True)
    return into
