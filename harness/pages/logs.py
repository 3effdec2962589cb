"""docs/logs.md, of the table of fields."""

from __future__ import annotations

from driverctr.log_fields import FIELDS

HEAD = """\
# Logs

Generated from `src/driverctr/log_fields.py` by `./dev docs`.

The log goes to standard error: `docker logs`, `kubectl logs`. `LOG_LEVEL` is the least level that is told, `LOG_FORMAT`
its form.

## Text

A line at each step's start and end, and whatever is worth telling between them. Times are in UTC. A warning and an
error have their code at the end of the line, where there is one:

```
"""

MIDDLE = """\
```

While modules are built there is at most one line a second. On a terminal (`docker run -it`) a bar is drawn instead,
with what was compiled, the rate and the time left; lines of the log go above it, and nothing of it stays:

```
"""

FIELDS_HEAD = """\
```

## JSON

With `LOG_FORMAT=json` each line is one object. No field but these is ever there, and none is ever given another
meaning; what is told in words may be worded differently in the next release.

| field | type | when | meaning |
|---|---|---|---|
"""

TAIL = """
```json
{json}```

## Secrets

No secret is written, neither in the log nor in the status, the termination message, what a verb prints, the bundle of
`driverctr doctor` or the log of a build that is kept: `...` stands in its place. Hidden are

- values that were given as secret, wherever they stand, in the words of another program too: of variables whose name
  ends in `PASSWORD`, `PASSWD`, `PASSPHRASE`, `SECRET`, `TOKEN`, `API_KEY`, `ACCESS_KEY`, `PRIVATE_KEY`,
  `CREDENTIALS`, `_PASS`, `_PWD`, `_PIN` and the like; names and passwords in addresses of settings and proxies; what
  apt and dnf are given in `auth.conf`, sources, repository files and their configuration;
- what looks to be one by its place: a name and password in an address, a signature or a token in its query, the
  header `Authorization` and its like, `--password X`, `-pX` (of letters and digits) and `token=X` in a command line,
  `"password": "X"` in the body of an answer, a private key in PEM form, tokens of known forms.

Four things are not found: a secret of less than four signs, a secret that is a word of everyday use (`nvidia`,
`password`), a single line of a private key that was never given to us, and one that only a program's own grammar
tells (`-p X`, `refused hunter2`); the first two are hidden where their place tells. Module parameters are no secret:
the kernel shows them to everybody.
"""

TEXT = """\
22:48:27.630 INFO    headers: for kernel 6.1.0-56-amd64
22:48:27.718 INFO    headers: 6.1.0-56-amd64 from our own root /usr/src/linux-headers-6.1.0-56-amd64
22:48:27.721 INFO    headers: done in 0.09 s
22:48:27.769 INFO    build: proprietary 535.309.01 for 6.1.0-56-amd64
"""

FAILED = """\
22:57:03.750 ERROR   missing capabilities: SYS_MODULE, SYS_PTRACE, SYS_ADMIN. Run the container with --privileged \
(Kubernetes: securityContext.privileged); nothing was touched code=no-privilege
"""

BAR = """\
22:48:27.769 INFO    build: proprietary 535.309.01 for 6.1.0-56-amd64
22:48:29.227 INFO    build: 2 jobs with gcc-12, output in \
/var/tmp/driverctr-build-6.1.0-56-amd64-535.309.01-proprietary.log
build ━━━━━━━━━━━━━━━━━━━━━━━━━━╺━━━━━━━━━━━━━ 115 of 174 (66 %) objects compiled, 0.6/s, 98 s left
"""

JSON = """\
{"time": "2026-11-28T22:57:03.240003+00:00", "level": "info", "message": "headers: for kernel 6.1.0-56-amd64", \
"step": "headers", "event": "start"}
{"time": "2026-11-28T22:57:03.246610+00:00", "level": "info", \
"message": "headers: not from ARCHIVE_URL: it is not set", "code": "headers-missing"}
{"time": "2026-11-28T22:57:03.246833+00:00", "level": "warning", "message": "headers: failed in 0.01 s", \
"step": "headers", "event": "failed", "seconds": 0.006}
"""


def markdown() -> str:
    """The page."""
    rows = "".join(f"| `{field.name}` | {field.kind} | {field.when} | {field.meaning} |\n" for field in FIELDS)
    return HEAD + TEXT + FAILED + MIDDLE + BAR + FIELDS_HEAD + rows + TAIL.format(json=JSON)
