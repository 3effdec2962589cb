"""What dnf's words mean: which of them count, whether trying again helps, what to do (seen with dnf 4.14)."""

import re

from driverctr.errors import Code, DriverError
from driverctr.run import Result

COMPLAINT = re.compile(
    r"^\s+- |^(Error:|Warning: failed loading)|^\[(MIRROR|FAILED)\]|^No such command|"
    r"^(No package|No match for argument|All matches were filtered)"
)
"""Lines that tell what went wrong; the others are progress and echoes of these."""

COMPLAINTS_MAX = 8

CREDENTIALS = re.compile(r"://[^/\s]+@")
"""A server's name and password, which dnf repeats from a repository file."""

GONE = re.compile(r"No package \S+ available|No match for argument|Unable to find a match")
NO_INDEX = re.compile(r"Failed to download metadata|Cannot find a valid baseurl|failed loading")
UNSIGNED = re.compile(r"GPG signature verification error|GPG verification is enabled, but")

TRANSIENT = re.compile(
    r"Curl error \((?!3\)|37|51|58|60|77|83)\d+\)|checksum doesn't match|No more mirrors to try|"
    r"Status code: (408|429|5\d\d)"
)
"""A server that does not answer, or that is being changed. Not so: certificates, addresses, files (curl(1))."""

REMEDIES = (
    (
        re.compile(r"Status code: 40[13]|Curl error \(58\)"),
        "The server does not know this node: mount the host's entitlement at /run/secrets/etc-pki-entitlement, "
        "/run/secrets/redhat.repo and /run/secrets/rhsm, and see that it has not expired; or bring repositories of "
        "your own",
    ),
    (
        re.compile(r"Curl error \((51|60|77|83)\)"),
        "Mount the certificate of who signs that server's (or the proxy's) in /etc/pki/ca-trust/source/anchors, and "
        "see that the node's clock is right",
    ),
    (re.compile(r"No such command"), "The image is incomplete: it lacks dnf-plugins-core"),
    (
        re.compile(r"\[FAILED\]|checksum doesn't match"),
        "The repository is not of one piece: what its index names is not there, or differs. Have its owner write the "
        "index anew, or wait until the mirror is complete",
    ),
    (UNSIGNED, "Name the key that signs the index as gpgkey= of that repository"),
)
ANYTHING = "Check the repositories in /etc/yum.repos.d, the proxy variables and the network of this container"
NOWHERE = "Give the container repositories that have it, or the package itself in a folder (PACKAGES_DIR)"


def complaints(result: Result) -> str:
    """dnf's complaints, each once; its last words where it made none.

    That there is no such package is an echo where an index could not be read.
    """
    lines = [line for line in (*result.stdout.splitlines(), *result.stderr.splitlines()) if COMPLAINT.search(line)]
    if any(NO_INDEX.search(line) for line in lines):
        lines = [line for line in lines if not GONE.search(line)]
    said = dict.fromkeys(line.strip().removeprefix("- ").removeprefix("Error: ").rstrip(".") for line in lines)
    return CREDENTIALS.sub("://...@", "; ".join(list(said)[-COMPLAINTS_MAX:]) or result.words)


def refusal(words: str) -> DriverError:
    """dnf's complaints as an error: no such package, no trust, or a failure."""
    if UNSIGNED.search(words):
        code = Code.PACKAGES_UNTRUSTED
    elif GONE.search(words):
        return DriverError(Code.HEADERS_MISSING, words, NOWHERE)
    else:
        code = Code.PACKAGES_FAILED
    return DriverError(code, words, next((text for known, text in REMEDIES if known.search(words)), ANYTHING))


def may_pass(words: str) -> bool:
    """Whether trying again may help."""
    return TRANSIENT.search(words) is not None
