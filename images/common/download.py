"""Fetch one big file: what came is kept when the connection breaks, what is asked for again is only the rest.

Proxies come from the environment (http_proxy, https_proxy, no_proxy in either case), as urllib reads them.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver_files import BuildError

CHUNK = 1 << 20
MIB = 1 << 20
# Seconds without a byte until a connection is given up.
TIMEOUT_S = 60
# Attempts one after the other that bring nothing, and attempts in all.
IDLE_ATTEMPTS = 5
ATTEMPTS = 50
# Pauses between attempts double from the first to the last (seconds).
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0
# RFC 9110: told to come again.
BUSY = (408, 425, 429, 500, 502, 503, 504)
RANGE_NOT_SATISFIABLE = 416
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
USE_ANOTHER = "Give a BASE_URL that has it, or the file itself (RUNFILE)"


class BrokenOffError(Exception):
    """An attempt that another may better."""


class StaleError(BrokenOffError):
    """What came so far cannot be continued."""


@dataclass
class Download:
    """A file on its way: `part` has what came so far, `tag` names the very content that it is of."""

    url: str
    part: Path
    pause: Callable[[float], Any] = time.sleep

    @property
    def tag(self) -> Path:
        """The file with the ETag or date of what came so far, as the server gave it."""
        return self.part.with_name(f"{self.part.name}.tag")

    @property
    def size(self) -> int:
        """How many bytes came so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def finish(self) -> Path:
        """Fetch until nothing is missing; raises BuildError."""
        idle = 0
        for attempt in range(1, ATTEMPTS + 1):
            before = self.size
            try:
                self._fetch()
            except BrokenOffError as reason:
                idle = idle + 1 if self.size <= before else 0
                if idle == IDLE_ATTEMPTS or attempt == ATTEMPTS:
                    raise BuildError(
                        f"{self.url} cannot be fetched, after {attempt} attempts: {reason}",
                        "See that the server can be reached from here (HTTPS_PROXY, NO_PROXY), or give the file itself"
                        " (RUNFILE)",
                    ) from reason
                seconds = min(FIRST_PAUSE_S * 2**idle, LAST_PAUSE_S)
                print(f"{self.url}: {reason}; {self.size >> 20} MiB are here, again in {seconds:.0f} s", flush=True)
                self.pause(seconds)
            else:
                self.tag.unlink(missing_ok=True)
                return self.part
        raise AssertionError("ATTEMPTS must be at least 1")

    def _fetch(self) -> None:
        """One attempt; raises BrokenOffError where another may help, BuildError where not."""
        try:
            self._receive()
        except StaleError:
            self.tag.unlink(missing_ok=True)
            raise
        except OSError as error:
            if error.errno in FULL_DISK:
                raise _full(self.part, str(error.strerror)) from error
            raise BuildError(
                f"{self.part} cannot be written: {error.strerror}", "Set TMPDIR to another disk"
            ) from error

    def _receive(self) -> None:
        headers = {"Accept-Encoding": "identity"}
        if self.size and self.tag.exists():
            headers |= {"Range": f"bytes={self.size}-", "If-Range": self.tag.read_text()}
        with _open(self.url, headers) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {self.size}-"):
                raise StaleError("the server answered with another range than asked for")
            start = self.size if resumed else 0
            rest = response.headers.get("Content-Length")
            wanted = start + int(rest) if rest else None
            self._check_room((wanted or 0) - start)
            self._keep_tag(response.headers)
            with self.part.open("ab" if resumed else "wb") as file:
                for block in _blocks(response):
                    file.write(block)
        if wanted is not None and self.size != wanted:
            raise BrokenOffError(f"it broke off after {self.size} of {wanted} bytes")

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if needed > free:
            raise _full(self.part, f"{needed // MIB} MiB are to come, {free // MIB} MiB are free")

    def _keep_tag(self, headers: Any) -> None:
        """Keep what names this content; without it what came cannot be trusted to belong to what comes."""
        tag = headers.get("ETag", "")
        told = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
        if told:
            self.tag.write_text(told)
        else:
            self.tag.unlink(missing_ok=True)


def fetch(url: str, to: Path, pause: Callable[[float], Any] = time.sleep) -> Path:
    """Fetch a file into a folder; raises BuildError."""
    print(f"fetching {url}", flush=True)
    name = url.rsplit("/", 1)[-1]
    return Download(url, to / f"{name}.part", pause).finish().replace(to / name)


def published_sum(url: str, pause: Callable[[float], Any] = time.sleep) -> str:
    """Return the SHA-256 that the server has of a file, in <url>.sha256sum; empty where it has none."""
    for attempt in range(1, IDLE_ATTEMPTS + 1):
        try:
            with _open(f"{url}.sha256sum", {}) as response:
                words = response.read(4096).decode(errors="replace").split()
            return words[0].lower() if words and is_sum(words[0].lower()) else ""
        except BuildError:
            return ""
        except (BrokenOffError, OSError, http.client.HTTPException) as error:
            if attempt == IDLE_ATTEMPTS:
                raise BuildError(
                    f"{url}.sha256sum cannot be fetched: {error}", "Give the sum yourself (RUNFILE_SHA256)"
                ) from error
            pause(min(FIRST_PAUSE_S * 2**attempt, LAST_PAUSE_S))
    raise AssertionError("IDLE_ATTEMPTS must be at least 1")


def is_sum(text: str) -> bool:
    """Return whether a text is a SHA-256 in hex."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def check_sum(file: Path, wanted: str, origin: str) -> None:
    """Raise BuildError unless the file has this SHA-256, which `origin` told."""
    total = hashlib.sha256()
    with file.open("rb") as content:
        for block in iter(lambda: content.read(CHUNK), b""):
            total.update(block)
    if total.hexdigest() != wanted.lower():
        raise BuildError(
            f"{file.name} has SHA-256 {total.hexdigest()}, {origin} says {wanted.lower()}",
            "Fetch it anew, or correct the sum: do not use this file",
        )


def _open(url: str, headers: dict[str, str]) -> Any:
    """Open a URL; raises BrokenOffError where another attempt may help, BuildError where not."""
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in BUSY:
            raise BrokenOffError(f"the server says {error.code} {error.reason}") from error
        if error.code == RANGE_NOT_SATISFIABLE:
            raise StaleError("the server has less than what is here") from error
        raise BuildError(f"{url}: the server says {error.code} {error.reason}", USE_ANOTHER) from error
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOffError(_words(error)) from error
    except ValueError as error:
        raise BuildError(f"{url} is no address: {error}", "Give BASE_URL as https://HOST/PATH") from error


def _blocks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOffError(f"it broke off: {_words(error)}") from error
        if not block:
            return
        yield block


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", "") or reason or type(error).__name__)


def _full(file: Path, reason: str) -> BuildError:
    return BuildError(f"the disk of {file.parent} is full: {reason}", "Make room there, or set TMPDIR to another disk")
