"""What apt's words mean: which error it is, what to do about it, and whether trying again can help."""

import re

from driverctr.errors import Code, DriverError
from driverctr.records import frozen
from driverctr.run import Result

CREDENTIALS = re.compile(r"(?<=://)[^\s/]+@")
MOST_LINES = 6

REPOSITORY = r"(?:GPG error: |The repository ')(?P<repository>\S+ \S+)"


@frozen
class Sign:
    """Words that tell a failure; `says` takes the pattern's named groups, `again` is whether to try again."""

    pattern: str
    code: Code
    says: str
    remedy: str
    again: bool = False


GIVE_THE_KEY = (
    "Mount the public key of who signs it into /etc/apt/trusted.gpg.d (*.asc or *.gpg), or at the path that Signed-By "
    "of its source names; or correct the source"
)
REACH = "Check the package sources in /etc/apt, the proxy variables and the network of this container"
MIRROR = "The mirror is being updated, or a proxy keeps an old copy: try again later, or use another mirror"
DATABASE = "Find out what else works on that folder of this container; a fresh container has a sound one"

SIGNS = (
    Sign(
        rf"(?s){REPOSITORY}.*NO_PUBKEY (?P<key>\w+)",
        Code.PACKAGES_UNTRUSTED,
        "{repository} is signed with the key {key}, which is not trusted here",
        GIVE_THE_KEY,
    ),
    Sign(
        rf"(?s){REPOSITORY}.*EXPKEYSIG (?P<key>\w+)",
        Code.PACKAGES_UNTRUSTED,
        "{repository} is signed with the key {key}, whose time is over",
        "Mount its renewed public key in place of the old one, into /etc/apt/trusted.gpg.d or where Signed-By says",
    ),
    Sign(
        rf"(?s){REPOSITORY}.*signatures were invalid",
        Code.PACKAGES_UNTRUSTED,
        "the signature of {repository} is wrong: its index was changed after it was signed",
        "Use another mirror, and find out who changed this one",
    ),
    Sign(
        r"Release file for (?P<file>\S+) is (?P<when>expired \(invalid since [^)]*\)|not valid yet[^.]*)",
        Code.PACKAGES_UNTRUSTED,
        "the index {file} is {when}",
        "Use a mirror that is kept up to date, and see that the node's clock is right; a snapshot of old packages is "
        "given by ARCHIVE_URL, whose index may be past its date",
    ),
    # Of an InRelease that a server does not give, save by 404, apt says that its repository is not signed, too.
    Sign(
        r"Failed to fetch (?P<file>\S+) +(?P<status>40[137] [^\[;]*)",
        Code.PACKAGES_FAILED,
        "{file} was refused: {status}",
        "Give the credentials in /etc/apt/auth.conf.d, or for a proxy in its variable",
    ),
    Sign(
        r"Failed to fetch (?P<file>\S+) +(?P<status>(?:4(?!04)\d\d|5\d\d) [^\[;]*)",
        Code.PACKAGES_FAILED,
        "{file} cannot be had: the server, or a proxy, answers {status}",
        REACH,
        again=True,
    ),
    Sign(
        r"The repository '(?P<repository>\S+ \S+)[^']*' is not signed",
        Code.PACKAGES_UNTRUSTED,
        "{repository} is not signed",
        "Sign the repository (a Release file with InRelease or Release.gpg beside it), or use another one",
    ),
    Sign(
        r"cannot be authenticated|unauthenticated packages",
        Code.PACKAGES_UNTRUSTED,
        "a package comes from a repository that is not trusted",
        GIVE_THE_KEY,
    ),
    Sign(
        r"Failed to fetch (?P<file>\S+) +(?:Hash Sum mismatch|File has unexpected size)",
        Code.PACKAGES_FAILED,
        "{file} is not the file that the signed index lists: its checksum or size differs",
        MIRROR,
        again=True,
    ),
    Sign(
        r"Failed to fetch (?P<file>\S+\.deb) +(?:404|File not found)",
        Code.PACKAGES_FAILED,
        "{file} is listed in the index and gone from the repository",
        MIRROR,
        again=True,
    ),
    Sign(
        r"The repository '(?P<repository>\S+ \S+)[^']*' (?:does not have|no longer has) a Release file",
        Code.PACKAGES_FAILED,
        "there is no repository at {repository}",
        "Correct the address and suite in the package source",
    ),
    Sign(
        r"(?P<what>[Nn]o space left on device|No space left)",
        Code.NO_SPACE,
        "no space is left on the device",
        "Give the container's /var/tmp 1 GB to spare",
    ),
    Sign(
        r"Failed to fetch (?P<file>\S+) .*[Cc]ertificate",
        Code.PACKAGES_FAILED,
        "the certificate of the server of {file} is not trusted here",
        "Mount the certificate of who signed it, as *.crt, into /usr/local/share/ca-certificates",
    ),
    Sign(
        r"Could not get lock (?P<file>\S+?)\.? |Unable to (?:acquire the dpkg frontend lock|lock)[^/]*(?P<other>/\S*)",
        Code.PACKAGES_FAILED,
        "apt's files are locked by another process",
        DATABASE,
        again=True,
    ),
    Sign(
        r"Unable to parse package file (?P<file>\S+)|package cache file is corrupted|status file could not be parsed",
        Code.PACKAGES_FAILED,
        "apt's database is damaged",
        DATABASE,
    ),
    Sign(
        r"list of sources could not be read|Malformed (?:entry|stanza|line)",
        Code.BAD_SETTING,
        "a file of package sources is not valid",
        "Correct the file in /etc/apt/sources.list.d that is named; see sources.list(5)",
    ),
    Sign(
        r"Unable to locate package|No packages found|has no installation candidate",
        Code.HEADERS_MISSING,
        "none of the repositories asked has the package",
        "",
    ),
    Sign(r"Failed to fetch (?P<file>\S+)", Code.PACKAGES_FAILED, "{file} cannot be fetched", REACH, again=True),
)


def error_of(what: str, result: Result) -> DriverError:
    """The error that a failed call of apt stands for, with its own words."""
    told = complaints(result)
    sign = sign_of(told)
    if sign is None:
        return DriverError(Code.PACKAGES_FAILED, f"`{what}` failed: {told}", REACH)
    found = re.search(sign.pattern, told)
    says = sign.says.format(**found.groupdict(default="")) if found else sign.says
    return DriverError(sign.code, f"{says}; `{what}` said: {told}", sign.remedy)


def sign_of(told: str) -> Sign | None:
    """The first row whose words are in a text."""
    return next((sign for sign in SIGNS if re.search(sign.pattern, told)), None)


def may_pass(error: DriverError) -> bool:
    """Whether trying again can help."""
    sign = sign_of(error.message)
    return sign is None or sign.again


def complaints(result: Result) -> str:
    """apt's errors (E:), and what it says of signatures, if it named any; else its last words. No credentials."""
    lines = [line.strip() for line in result.stderr.splitlines()]
    told = [line for line in lines if line.startswith(("E:", "W: GPG error", "W: An error occurred during the sig"))]
    useful = [line for line in told if "Some index files failed to download" not in line] or told
    return CREDENTIALS.sub("...@", "; ".join(useful[:MOST_LINES]) or result.words)
