"""What an address and a public key in a setting look like, and how an address may be shown."""

import binascii
import re

from driverctr.deferred import pattern

HOST = r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?"
ADDRESS = pattern(rf"https?://([^\s/?#]*@)?{HOST}(/[^\s?#]*)?")

PUBLIC_KEY_SIZE = 32
"""Bytes of an Ed25519 public key (RFC 8032)."""


def is_address(value: str) -> bool:
    """Whether it is an HTTP(S) address without a query, perhaps with a name and password."""
    return value.isprintable() and ADDRESS.fullmatch(value) is not None and _can_be_taken_apart(value)


def _can_be_taken_apart(value: str) -> bool:
    """As who connects to it will do: a port out of range, say, or a bracket in a password, is met only there."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def without_credentials(address: str) -> str:
    """An address as it may be shown, also one that is not valid: no name, no password, no query that may be signed."""
    shown = re.sub(r"^(https?:/*)?.*@", r"\1...@", address, flags=re.IGNORECASE | re.DOTALL)
    return re.sub(r"[?#].*", "?...", shown, flags=re.DOTALL)


def split_keys(value: str) -> list[str]:
    """The public keys of a list with commas between."""
    return [word for part in value.split(",") if (word := part.strip())]


def are_public_keys(value: str) -> bool:
    """Whether each is a public key in base64 or an absolute path."""
    return all(word.isprintable() and (word.startswith("/") or is_key(word)) for word in split_keys(value))


def is_key(word: str) -> bool:
    """Whether it is the base64 of a public key: that may begin as a path does."""
    try:
        return len(binascii.a2b_base64(word, strict_mode=True)) == PUBLIC_KEY_SIZE
    except ValueError:
        return False
