"""Parsers of settings: the variable and its text → a value, or the error that tells what is valid.

Each raises DriverError (bad-setting).
"""

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from driverctr.addresses import are_public_keys, is_address, without_credentials
from driverctr.errors import Code, DriverError
from driverctr.versions import DriverVersion


def parse_text(variable: str, value: str) -> str:
    """Text of one line."""
    if value and not value.isprintable():
        raise not_valid(variable, value, "text of one line")
    return value


class Secret(str):
    """Text that no representation shows: of a record, in an error, in a traceback. Only what uses it gets to see it."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Whether there is one, and no more."""
        return "a secret" if self else "''"


def parse_token(variable: str, value: str) -> Secret:
    """A token of letters, digits and a few signs; no error shows it."""
    if value and not re.fullmatch(r"[\w.~+/=-]+", value):
        raise not_valid(variable, "...", "a token: one word of letters, digits and .~+/=-")
    return Secret(value)


def parse_release(variable: str, value: str) -> str:
    """A release of a distribution or of OpenShift, or nothing."""
    if not re.fullmatch(r"[\w.-]*", value):
        raise not_valid(variable, value, "a release such as 9.4")
    return value


def parse_path(variable: str, value: str) -> Path:
    """An absolute path."""
    if not value.startswith("/") or not value.isprintable():
        raise not_valid(variable, value, "an absolute path")
    return Path(value)


def parse_version(variable: str, value: str) -> DriverVersion | None:
    """A driver version, or nothing: then the image's own."""
    return DriverVersion(value) if value else None


def parse_boolean(variable: str, value: str) -> bool:
    """true or false."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
    try:
        return words[value.lower()]
    except KeyError:
        raise not_valid(variable, value, "true or false") from None


def parse_seconds(variable: str, value: str) -> float:
    """A positive number of seconds."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86400:
        raise not_valid(variable, value, "a number of seconds between 0 and 86400")
    return seconds


def parse_pause(variable: str, value: str) -> float:
    """Seconds between attempts: a second at least, since what is tried without a pause is tried in a circle."""
    seconds = parse_seconds(variable, value)
    if seconds < 1:
        raise not_valid(variable, value, "a number of seconds from 1 to 86400")
    return seconds


def parse_threads(variable: str, value: str) -> int | None:
    """A number of build jobs, or nothing: then as many as CPU quota and memory allow."""
    if not value:
        return None
    threads = parse_whole(value, 4096)
    if threads is None:
        raise not_valid(variable, value, "a whole number from 1 to 4096")
    return threads


def parse_whole(text: str, most: int) -> int | None:
    """A number from 1 to `most` (below 100,000), however many digits are given: Python refuses more than 4,300."""
    digits = text.lstrip("0")[:6]
    return int(digits) if text.isascii() and text.isdigit() and digits and int(digits) <= most else None


def parse_size(variable: str, value: str) -> int:
    """Bytes, from a number and a unit: M, G or T, of 1000."""
    units = {"M": 10**6, "G": 10**9, "T": 10**12}
    number, unit = value[:-1], value[-1:]
    count = parse_whole(number, 99999)
    if unit not in units or count is None:
        raise not_valid(variable, value, "a whole number and M, G or T, such as 2G")
    return count * units[unit]


def parse_url(variable: str, value: str) -> str:
    """An HTTP(S) address, or nothing; the error shows no name and password that stand in it."""
    if value and not is_address(value):
        raise not_valid(variable, without_credentials(value), "an address such as https://modules.example/driverctr")
    return value.rstrip("/")


def parse_archive(variable: str, value: str) -> str:
    """What a package tool takes for an archive, or nothing; the tool itself judges its form."""
    if value and (not value.isprintable() or "://" not in value):
        shown = without_credentials(value)
        raise not_valid(variable, shown, "an address such as https://snapshot.example/debian bookworm main")
    return value


def parse_endpoint(variable: str, value: str) -> tuple[str, int] | None:
    """Where to listen: an address, "" for all there are, and a port; or nothing. Names are not taken: they need DNS."""
    if not value:
        return None
    host, colon, digits = value.rpartition(":")
    port = parse_whole(digits, 65535)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    valid = _is_of_family(bare, "AF_INET6") if bare != host else not host or _is_of_family(host, "AF_INET")
    if not colon or port is None or not valid:
        raise not_valid(variable, value, "an address and a port, such as :9400, 127.0.0.1:9400 or [::1]:9400")
    return bare, port


def _is_of_family(address: str, family: str) -> bool:
    import socket

    try:
        socket.inet_pton(getattr(socket, family), address)
    except (OSError, ValueError):
        return False
    return True


def parse_textfile(variable: str, value: str) -> Path | None:
    """The path of a file that node-exporter's textfile collector reads (by the end of its name), or nothing."""
    if not value:
        return None
    if not (value.startswith("/") and value.isprintable() and value.endswith(".prom")):
        raise not_valid(variable, value, "an absolute path that ends in .prom")
    return Path(value)


def parse_public_keys(variable: str, value: str) -> str:
    """Public keys, or nothing; what files of them hold is seen when it is needed."""
    if not are_public_keys(value):
        raise not_valid(variable, value, "the base64 of a 32 byte Ed25519 public key, or the path of its PEM file")
    return value


def parse_member(kind: type[StrEnum]) -> Callable[[str, str], StrEnum]:
    """A parser for one of an enum's words; the error lists them all."""

    def parse(variable: str, value: str) -> StrEnum:
        try:
            return kind(value)
        except ValueError:
            raise not_valid(variable, value, "one of " + ", ".join(kind)) from None

    return parse


def not_valid(variable: str, value: str, valid: str) -> DriverError:
    """The error for a value that is not what `valid` says."""
    shown = value if len(value) < 200 else f"{value[:200]}..."
    return DriverError(
        Code.BAD_SETTING,
        f"{variable}={shown!r} is not {valid}",
        f"Set {variable} to {valid}, or leave it out",
    )
