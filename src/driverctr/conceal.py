"""Nothing secret is told: in every text that leaves us, what is known or looks to be secret becomes "...".

Known are values that this process was given as secret (`learn`, `learn_environment`, `learn_text`): they are found
wherever they stand, in another program's words too. What was never given is known by its place (`conceal_rules`).

What is not found: a secret of less than four signs, or one that is a word of everyday use (ORDINARY), unless its place
tells; a line of a private key that comes alone. Module parameters are no secret: the kernel shows them to everybody.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from driverctr.deferred import pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from driverctr.conceal_rules import Rule

HIDDEN = "..."

LEAST_LENGTH = 4
WHOLE_LENGTH = 8
"""Signs. What is shorter than the first is in every second word; below the second, and where it is of letters only, a
secret is looked for as a word of its own."""

ORDINARY = pattern(
    "auto|basic|changeme|debian|default|disabled|docker|driver|enabled|false|kernel|login|modules|none|null|nvidia"
    "|oauth2|optional|password|redhat|required|root|secret|token|true|ubuntu|user|username|x-access-token",
    re.IGNORECASE,
)
"""No secret, though it may be given as one: to hide it everywhere would hide half of what we say."""

NAMES = ("PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "APIKEY", "API_KEY", "AUTH_KEY", "ACTIVATION_KEY")
SHORT_NAMES = ("PASS", "PSK", "PIN")
NAMES_OF_KEYS = (
    "ACCESS_KEY",
    "SECRET_KEY",
    "PRIVATE_KEY",
    "SIGNING_KEY",
    "ENCRYPTION_KEY",
    "LICENSE_KEY",
    "REGISTRATION_KEY",
    "ACCOUNT_KEY",
    "SHARED_KEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "_PWD",
)
"""What names of secrets end in; the short ones are the whole name, or its last word; those of the third may have the
path of a file, which is none."""


class Known:
    """Secrets that this process was given; the longest are hidden first, since one may be a part of another."""

    def __init__(self) -> None:
        """None yet."""
        self._values: list[str] = []

    def add(self, values: Iterable[str]) -> None:
        """Hide these from now on, in whatever form they may come back."""
        found = {form for value in values if not ORDINARY.fullmatch(value.strip()) for form in _forms(value.strip())}
        found = {form for form in found if len(form) >= LEAST_LENGTH}
        self._values = sorted({*self._values, *found}, key=lambda value: (-len(value), value))

    def hide(self, text: str) -> str:
        """A text without them."""
        for value in self._values:
            if value not in text:
                continue
            if len(value) >= WHOLE_LENGTH and not value.isalpha():
                text = text.replace(value, HIDDEN)
            else:
                text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
        return text


KNOWN = Known()
"""Of this process, whoever writes: a secret may come back in the words of any program we run or server we ask."""


def conceal(text: str) -> str:
    """A text as it may be shown."""
    return _hide(text, _rules_for(text))


def conceal_all(value: Any) -> Any:
    """A document as it may be shown: every text in it, and whatever has the name of a secret.

    Before it is made JSON: there a text may have another form than the secret that is looked for. Which rules it takes
    is looked up once: in most documents it is none.
    """
    return _conceal_part(value, _rules_for("\n".join(_texts(value))))


def _rules_for(text: str) -> list[Rule]:
    from driverctr.conceal_rules import RULES  # here: who only asks for help has nothing to hide

    small = text.lower()
    return [rule for rule in RULES if any(word in small for word in rule.words)]


def _hide(text: str, rules: Iterable[Rule]) -> str:
    text = KNOWN.hide(text)
    for rule in rules:
        text = rule.pattern.sub(rule.stays + HIDDEN, text)
    return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield str(name)
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _conceal_part(value: Any, rules: Sequence[Rule]) -> Any:
    if isinstance(value, str):
        return _hide(value, rules)
    if isinstance(value, Mapping):
        return {
            _conceal_part(name, rules): HIDDEN
            if isinstance(one, str) and _is_secret(str(name), one)
            else _conceal_part(one, rules)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_conceal_part(one, rules) for one in value]
    return value


def conceal_command(words: Sequence[str]) -> str:
    """A command line as it may be shown: a word that is a secret is hidden whole, with the spaces in it."""
    shown: list[str] = []
    for before, word in zip(("", *words), words, strict=False):
        name, equals, value = word.partition("=")
        if before.startswith("-") and _is_secret(before, word) and not word.startswith("-"):
            shown.append(HIDDEN)
        elif equals and _is_secret(name, value):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(word)
    return conceal(" ".join(shown))


def printed(what: str | Mapping[str, Any]) -> str:
    """What a verb prints of what it found: its text, or the document as JSON."""
    if isinstance(what, str):
        return conceal(what)
    from json import dumps

    return dumps(conceal_all(what), indent=2) + "\n"


def learn(*values: str) -> None:
    """Hide these values from now on."""
    KNOWN.add(values)


def learn_environment(environment: Mapping[str, str]) -> None:
    """Hide what an environment holds of secrets: by the names of variables, and in addresses."""
    found: list[str] = []
    for name, value in environment.items():
        if _is_secret(name, value):
            found += [value, *_lines(value)]
        elif "@" in value and ("://" in value or name.lower().endswith("_proxy")):
            found += _of_addresses(value if "://" in value else f"//{value}")
            if name.lower().endswith("_proxy"):  # where a sign that an address must not have may stand in the password
                found.append(value.rpartition("@")[0].rpartition("://")[2].partition(":")[2])
    if found:
        learn(*found)


def learn_text(text: str) -> None:
    """Hide what a file of settings holds of secrets: netrc(5), a repository file, apt's sources and configuration."""
    found = _of_addresses(text)
    found += re.findall(r"\bpassword\s+(\S+)", text)
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and _is_secret(name.strip(), value.strip()):
            found.append(value.strip())
    learn(*found)


def _is_secret(name: str, value: str) -> bool:
    """Whether a name is that of a secret, and a value may be one."""
    plain = name.upper().replace("-", "_").rstrip("_0123456789")
    return bool(value) and (
        plain.endswith(NAMES)
        or plain.rpartition("_")[2] in SHORT_NAMES
        or (plain.endswith(NAMES_OF_KEYS) and not value.startswith("/"))
    )


def _lines(value: str) -> list[str]:
    """The lines of a private key, which other programs may say one by one."""
    return [line for line in value.splitlines() if len(line) > 2 * WHOLE_LENGTH and not line.startswith("-----")]


def _of_addresses(text: str) -> list[str]:
    """Passwords of addresses, or the names where no password goes with them; both as the server is told them."""
    from base64 import b64encode
    from urllib.parse import unquote

    found: list[str] = []
    for login in re.findall(r"//([^\s/?#\"]*)@", text):
        name, _, password = login.partition(":")
        secret = password if unquote(password) not in ("", "x-oauth-basic") else name
        both = f"{unquote(name)}:{unquote(password)}"
        found += [secret, unquote(secret), b64encode(os.fsencode(both)).decode()]
    return found


def _forms(value: str) -> tuple[str, ...]:
    """A secret as it is, and as Python, JSON and an address write it."""
    if value.isalnum():
        return (value,)
    from json import dumps
    from urllib.parse import quote

    quoted = (quote(value, safe, errors="surrogateescape") for safe in ("/", ""))
    return value, repr(value)[1:-1], dumps(value)[1:-1], *quoted
