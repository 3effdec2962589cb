"""Packages of rpm: their signatures, by keys of our choice, and what is in them; no database but our own is used."""

import re
from collections.abc import Sequence
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.records import frozen
from driverctr.run import Result, Runner

CHECK_LIMIT = 120.0
UNPACK_LIMIT = 300.0
"""Seconds."""

STRICT = ("--define", "_pkgverify_level signature", "--define", "_pkgverify_flags 0x0")
"""A signature is demanded, and nothing is left unchecked (rpm's macros.in); rpm before 4.14.2 does not know these."""

GOOD = re.compile(r": OK( \([0-9a-f]+\))?$")
SIGNATURE = re.compile(r"signature,? ", re.IGNORECASE)
OF_PAYLOAD = re.compile(r"^(Payload |(V\d |OpenPGP |RSA |DSA )\S* ?[^:]*signature)", re.IGNORECASE)
"""Lines that are about the payload too: its digest, which the signed header holds, or an older signature of it all."""

UNPACK = 'rpm2cpio "$1" | cpio --extract --make-directories --preserve-modification-time --no-preserve-owner --quiet'


@frozen
class Keyring:
    """A database of its own with public keys, below a folder."""

    runner: Runner
    folder: Path
    log: Log

    def add(self, keys: Sequence[Path]) -> None:
        """Take keys in; one that cannot be read is said and passed over: what it signed is refused later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for key in keys:
            result = self.runner.run([*self._rpmkeys(), "--import", key], limit=CHECK_LIMIT, check=False)
            if result.status != 0:
                self.log.warning(f"the key {key} is not taken: {result.words}")

    def check(self, package: Path) -> None:
        """Refuse a package unless a key of ours signed it and all digests are right; raises DriverError."""
        argv = [*self._rpmkeys(), "--checksig", "--verbose", *STRICT, package]
        if why := fault(self.runner.run(argv, limit=CHECK_LIMIT, check=False)):
            raise DriverError(
                Code.PACKAGES_UNTRUSTED,
                f"{package.name} is refused: {why}",
                "Name the public key of who signed it as gpgkey= of its repository, or put it into /etc/pki/rpm-gpg "
                "(for a folder of packages: beside them, as RPM-GPG-KEY-*)",
            )

    def _rpmkeys(self) -> list[str | Path]:
        return ["rpmkeys", "--dbpath", self.folder]


def fault(result: Result) -> str:
    """What is wrong with a package by rpmkeys' verbose words; "" if nothing is.

    rpm says "digests OK", and exits 0, of a package that nobody signed; so every line counts (rpm 4.14 to 4.20; the
    words are written down nowhere but in lib/rpmvs.c).
    """
    lines = [line.strip() for line in result.stdout.splitlines() if line[:1].isspace() and line.strip()]
    wrong = [line for line in lines if not GOOD.search(line) and not line.endswith(": NOTFOUND")]
    if not lines:
        return result.words
    if unknown := [line for line in wrong if line.endswith(": NOKEY")]:
        return f"its key is not among those trusted here: {unknown[0]}"
    if wrong:
        return "; ".join(wrong)
    if not any(SIGNATURE.search(line) and GOOD.search(line) for line in lines):
        return "it is not signed"
    if not any(OF_PAYLOAD.search(line) and GOOD.search(line) for line in lines):
        return "its signature does not cover the files in it"
    return "" if result.status == 0 else result.words


def unpack(runner: Runner, package: Path, into: Path) -> None:
    """Put a package's files below a folder; raises DriverError (command-failed). No script of it runs."""
    into.mkdir(parents=True, exist_ok=True)
    runner.run(["bash", "-o", "pipefail", "-c", UNPACK, "unpack", package.absolute()], limit=UNPACK_LIMIT, cwd=into)
