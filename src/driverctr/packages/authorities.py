"""Certificate authorities: one bundle of the distribution's and the user's, since mounted ones are in no bundle yet."""

import base64
import textwrap
from collections.abc import Iterator
from pathlib import Path

from driverctr.log import Log
from driverctr.packages import Sources

BUNDLE = "etc/pki/tls/certs/ca-bundle.crt"
"""The bundle that programs of RHEL trust (update-ca-trust(8))."""

EXTRACTED = ("tls-ca-bundle.pem", "email-ca-bundle.pem", "objsign-ca-bundle.pem", "README")
"""What update-ca-trust(8) writes into a folder of bundles; anything else there was mounted."""

BEGIN = b"-----BEGIN CERTIFICATE-----"


def bundle(sources: Sources, to: Path, log: Log) -> Path | None:
    """Write the bundle to a file; None where the user brought no authority: then the distribution's own serves.

    update-ca-trust is not called: it reads the one folder only, the operator mounts into the other (operator#1304), and
    it fails or undoes what is mounted there.
    """
    mounted = [text for file in sorted(set(user_files(sources))) if (text := as_pem(file, log))]
    if not mounted:
        return None
    system = sources.root / BUNDLE
    parts = [system.read_bytes()] if system.is_file() else []
    to.parent.mkdir(parents=True, exist_ok=True)
    # A bundle without a newline at its end would spoil the first certificate after it (operator#206).
    to.write_bytes(b"".join(part.rstrip() + b"\n" for part in (*parts, *mounted)))
    return to


def user_files(sources: Sources) -> Iterator[Path]:
    """Certificates that the user mounted: anything among the sources, and what is no one else's among the bundles."""
    place = sources.certificates
    yield from (file for file in below(sources.root, place.folder).rglob("*") if file.is_file())
    for folder in place.bundles:
        for file in below(sources.root, folder).glob("*"):
            if file.is_file() and file.name not in EXTRACTED:
                yield file


def below(root: Path, path: Path) -> Path:
    """An absolute path below a root."""
    return root / path.relative_to("/")


def as_pem(file: Path, log: Log) -> bytes:
    """A certificate file as PEM text, also from DER; empty, and said, where it is neither."""
    content = file.read_bytes()
    if BEGIN in content:
        return content
    if content[:1] == b"\x30":  # an ASN.1 SEQUENCE, as every certificate in DER is
        lines = textwrap.wrap(base64.b64encode(content).decode(), 64)
        return b"\n".join((BEGIN, *(line.encode() for line in lines), b"-----END CERTIFICATE-----"))
    log.warning(f"{file} is left out, it is no certificate in PEM or DER form")
    return b""
