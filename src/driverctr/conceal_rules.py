"""What looks to be secret by the place it has in a text: a table of rules, one pattern each.

What is hidden already is left as it is. Every repetition is bounded or
over signs that end at the next space, so that a long text takes time in proportion to its length.
"""

import re

from driverctr.deferred import pattern
from driverctr.records import frozen

SECRET = r"(?:pass(?:word|wd|phrase)|secret|token|(?:api|auth|activation)[_-]?key)"
KEY = (
    r"(?:(?:access|secret|private|signing|encryption)[_-]?key|(?:license|registration|account|shared)[_-]key"
    "|credentials?)"
)
"""Words that end the name of a secret; those of KEY name a file as often, whose path is none."""

STAYS = r"(?!['\"]?\.\.\.(?:[\s'\"&,;)\]}>]|$))"
QUOTED = r"""'[^'\n]*(?:'(?:"'"'[^'\n]*')*|$)|"(?:\\.|[^"\\\n])*(?:"|$)"""
BARE = r"""(?:'"'"'|[^\s'"\\\x1b]|\\[^\s'"]|['"](?=\w))+"""
VALUE = rf"{STAYS}(?:{QUOTED}|{BARE})"
"""A value as a shell, Python or JSON quotes it, up to the end of its line where the quote is never closed."""


SCHEME = r"(?:basic|bearer|negotiate|token|apikey|sharedkey)"
"""Of a header of HTTP, with one word after it."""

BREAK = r"(?:[\s;]|\\+[nr]){1,4}"
"""Between two lines of a key, or what stands for it in JSON. What it begins with may be no sign of a line, or each line
of a certificate that comes with a key doubles the ways to read it, and the time that takes."""


@frozen
class Rule:
    """A pattern of what is hidden, all but what `stays`, in texts that have one of `words` in small letters."""

    words: tuple[str, ...]
    pattern: "re.Pattern[str]"
    stays: str = r"\1"


OF_SECRETS = ("passw", "passp", "secret", "token", "api", "auth", "activation")
OF_KEYS = ("_key", "-key", "sskey", "etkey", "tekey", "ngkey", "onkey", "credential")
"""Of what the names of SECRET and KEY have: a line that has none is not looked at by their patterns."""


def _named(words: tuple[str, ...], name: str, value: str) -> tuple[Rule, ...]:
    """Where a value stands that has a name: --name value, name=value, 'name': 'value', name: value, <name>value<."""
    ignore, lines = re.IGNORECASE, re.IGNORECASE | re.MULTILINE
    quoted = r"(?:'\"'\"'|(?!(?P=quote))[^\n])*"
    escaped = r"\\+[\"'](?:(?!\\+[\"']).)*"
    return (
        Rule(
            words,
            pattern(rf"((?P<quote>['\"])[^'\"\s=]{{0,60}}?{name}_?\d{{0,2}}=)(?!['\"]){STAYS}{quoted}", ignore),
        ),
        Rule(words, pattern(rf"((?<![\w-])--?[\w-]{{0,40}}?{name}\d{{0,2}}(?:\s+(?!-)|=)){value}", ignore)),
        Rule(words, pattern(rf"({name}_?\d{{0,2}}\s?=\s?){value}", ignore)),
        Rule(words, pattern(rf"({name}_?\d{{0,2}}\\*[\"']\s?[:=]\s?)(?!\\*[\"']?\.\.\.)(?:{escaped}|{value})", ignore)),
        Rule(words, pattern(rf"(^[ \t]*(?:-[ ])?[\w.-]{{0,40}}?{name}:[ \t]+){value}[ \t]*$", lines)),
        Rule(words, pattern(rf"(<[\w:]{{0,40}}?{name}(?:id)?>){STAYS}[^<]+", ignore)),
    )


RULES = (
    # A private key in PEM form, whole, cut off at its end, or cut off at its beginning.
    Rule(
        ("private key",),
        pattern(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-----END [A-Z ]*KEY(?: BLOCK)?-----)?"),
        stays="",
    ),
    Rule(
        ("private key",),
        pattern(
            rf"(?<![\w+/=])(?:[\w+/=]{{16,80}}+{BREAK}){{0,99}}(?:[\w+/=]{{1,15}}{BREAK})?"
            r"-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
        ),
        stays="",
    ),
    # Name and password in an address; @ may be in the password.
    Rule(("://",), pattern(r"(://)[^\s/?#\"]*(?=@)")),
    # The same without a scheme, as CIFS and variables of proxies have it.
    Rule(("//",), pattern(rf"((?<![:\w/])//[^\s/:@\"]+:){STAYS}[^\s/@\"]+(?=@)")),
    Rule(
        ("proxy",),
        pattern(rf"(proxy[\"']?\s?[=:]\s?[\"']?[^\s:/@\"'=]{{1,64}}:){STAYS}[^\s/@\"]{{1,256}}(?=@)", re.IGNORECASE),
    ),
    # What signs an address or opens it, in its query.
    Rule(
        ("?", "&"),
        pattern(
            r"([?&][\w.-]{0,40}?(?:sig(?:nature)?|token|key|secret|pass(?:word|wd)?|pwd|credential|auth\w{0,12}_?|policy"
            rf"|jwt|hmac|session\w{{0,8}})=){STAYS}[^\s&#'\"]+",
            re.IGNORECASE,
        ),
    ),
    # Headers of HTTP: one word after the scheme, or the whole line where there are more.
    Rule(
        ("authorization", "cookie", "-token", "-key", "-secret", "x-"),
        pattern(
            r"(\b(?:(?:proxy-)?authorization|(?:set-)?cookie|private-token"
            r"|x-[\w-]{0,30}?(?:token|key|secret|signature|auth))[\"'\\]{0,3}\s?[:=]\s?[\"'\\]{0,3}"
            rf"(?:{SCHEME}\s+)?)(?!{SCHEME}\s+\.\.\.){STAYS}"
            r"(?:(?:digest|aws4-\S+)\s[^\n]*|[\w.-]+=[^\s;]*;[^\n]*|[^\s\"'\\]+)",
            re.IGNORECASE,
        ),
    ),
    Rule(
        ("bearer ", "basic "),
        pattern(r"(\b(?:bearer|basic)\s+)(?=[\w.~+/-]*\d)[\w.~+/-]{16,}=*", re.IGNORECASE),
    ),
    *_named(OF_SECRETS, SECRET, VALUE),
    *_named(OF_KEYS, KEY, rf"(?!['\"]?/){VALUE}"),
    Rule(
        ("pwd", "pass=", "pass =", "psk=", "psk =", "pin=", "pin ="),
        pattern(rf"((?<![a-z])(?:pwd|pass|psk|pin)\s?=\s?)(?!/|\d{{1,3}}\b){VALUE}", re.IGNORECASE),
    ),
    # curl's --pass, openssl's -passin pass:X
    Rule(
        ("-pass",),
        pattern(rf"((?<![\w-])--?(?:[\w-]{{0,40}}-)?pass(?:in|out)?(?:\s+(?!-)|=)(?:pass:|(?!pass:))){VALUE}"),
    ),
    # A password glued to its flag: after any -p where it has letters and digits, as neither a port nor -pthread has.
    Rule(
        ("mysql", "mariadb"),
        pattern(rf"(\b(?:mysql|mariadb)[\w-]{{0,40}}\s(?:[^\n]{{0,200}}?\s)?[\"']?-p){STAYS}[^\s\"']+"),
    ),
    Rule(
        ("-p",),
        pattern(r"((?<!\S)[\"']?-p)(?=[^\s/=:,\"']*\d)(?=[^\s/=:,\"']*[A-Za-z])[^\s/=:,\"']{6,}(?=[\s\"']|$)"),
    ),
    # ~/.docker/config.json: name and password in base64
    Rule(("auth",), pattern(rf"(\\?[\"']auth\\?[\"']\s?:\s?\\?[\"']){STAYS}[\w+/=-]{{8,}}")),
    # curl's and wget's name:password, which a user and group by number are not.
    Rule(
        (" -u", "'-u", "--user", "--proxy-user"),
        pattern(
            rf"((?<!\S)[\"']?(?:-u|-U|--user|--proxy-user)(?:\s+|=|)[\"']?[^\s:\"'=-][^\s:\"']*:)(?!\d+\b){STAYS}\S+"
        ),
    ),
    Rule(("sshpass", "pro attach"), pattern(rf"(\bsshpass\s+-p\s*|\bpro\s+attach\s+(?!-)){STAYS}\S+")),
    # netrc(5) and apt_auth.conf(5)
    Rule(("password",), pattern(rf"(\b(?:machine|login)\s+\S+\s+(?:login\s+\S+\s+)?password\s+){STAYS}\S+")),
    # Tokens that say by their form what they are.
    Rule(
        (
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
            "glpat-",
            "nvapi-",
            "xox",
            "akia",
            "asia",
            "dckr_pat_",
            "eyj",
            "hf_",
        ),
        pattern(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|nvapi-[\w-]{20,}|xox[abprs]-[\w-]{10,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}\b|dckr_pat_[\w-]{20,}|hf_[A-Za-z0-9]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
        ),
        stays="",
    ),
)
"""In the order they are applied."""
