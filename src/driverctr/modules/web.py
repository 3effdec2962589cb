"""Reading and writing below one HTTP(S) address, each act within bounds of time and bytes, whatever the server does."""

import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urljoin, urlsplit

import requests
from requests.utils import should_bypass_proxies
from urllib3.exceptions import HTTPError

from driverctr.addresses import without_credentials
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules.bounds import Deadline, Limits
from driverctr.modules.connections import Call, Session
from driverctr.modules.sinks import Sink
from driverctr.retry import retry

PIECE = 1 << 16
"""Bytes read at once."""
REDIRECTS = 3
"""So many are followed, one after the other."""
JOIN_LIMIT = 1.0
"""Seconds an abandoned exchange has for its end; only the search for a name outlives it, by the resolver's limits."""

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Who is believed instead of the authorities that come with `certifi`: the first that is set."""

NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,
)
MOVED = (301, 302, 303, 307, 308)
GONE = (404, 410)
TOO_FAR = 416
"""What we have of the file is more than there is of it now."""
YES = {"GET": (200, 206, TOO_FAR), "PUT": (200, 201, 204)}
PASSING = (408, 425, 429)
"""Statuses that another try may change, besides all from 500 on (RFC 9110, RFC 6585, RFC 8470)."""

TLS = f"Name the authority that signed its certificate: {', '.join(CA_VARIABLES)}"
REMEDY = "See that the server of REMOTE_URL answers from this node; proxies are taken from HTTP(S)_PROXY and NO_PROXY"


class Broken(Exception):
    """An exchange that failed in a way that may pass."""


class Web:
    """What lies below one address; name and password in it are used for basic authentication, and shown nowhere."""

    def __init__(
        self,
        address: str,
        environment: Mapping[str, str],
        limits: Limits,
        log: Log,
        sleep: Callable[[float], object],
    ) -> None:
        """`environment` has the proxies and CA bundles; `sleep` is what ends for a signal.

        Raises DriverError (remote-failed) for an address that is none.
        """
        self.shown = without_credentials(address)
        with told(self.shown):
            parts = urlsplit(address)
        place = parts.netloc.rpartition("@")[2]
        self.base = parts._replace(netloc=place).geturl().rstrip("/")
        self._login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._environment = environment
        self.limits = limits
        self._log = log
        self._sleep = sleep

    def get(self, name: str, sink: Sink, deadline: Deadline) -> None:
        """Fetch a file into a sink, going on where a broken exchange ended if the file is still the same.

        Raises DriverError: no-modules where there is none, remote-failed, and what the sink refuses.
        """
        transfer = Transfer(sink)
        self._persist(name, lambda call: self._fetch(call, name, transfer), deadline)

    def put(self, name: str, file: Path, deadline: Deadline) -> None:
        """Send a file; raises DriverError (remote-failed), OSError."""
        self._persist(name, lambda call: self._send(call, name, file), deadline)

    def _persist(self, name: str, act: Callable[[Call], None], deadline: Deadline) -> None:
        """Try until it works, nothing can be hoped for, or the time is over."""
        failed: list[DriverError] = []

        def attempt() -> DriverError | None:
            if failed and not deadline.left:
                return failed[-1]
            try:
                self._bounded(name, act, deadline)
            except Broken as broken:
                failed.append(self._refused(name, str(broken)))
                raise failed[-1] from broken
            except DriverError as final:
                return final
            return None

        final = retry(
            attempt,
            attempts=self.limits.attempts,
            first_pause=self.limits.first_pause,
            pause=lambda seconds: self._sleep(min(seconds, deadline.left)),
            log=self._log,
        )
        if final is not None:
            raise final

    def _bounded(self, name: str, act: Callable[[Call], None], deadline: Deadline) -> None:
        """Do one exchange in a thread and wait for it: no wait of ours is inside a library, where it might not end.

        Also a signal finds us here and not, say, in the resolver.
        """
        call = Call()

        def exchange() -> None:
            try:
                act(call)
            except BaseException as error:  # noqa: BLE001  # raised again by who waits
                call.error = error
            finally:
                call.done.set()

        thread = threading.Thread(target=exchange, name="remote", daemon=True)
        thread.start()
        try:
            in_time = call.done.wait(deadline.left)
        finally:
            call.end()
            thread.join(JOIN_LIMIT)
        if not in_time:
            raise self._refused(name, f"was not done within {deadline.seconds:g} s")
        if call.error is not None:
            raise call.error

    def _fetch(self, call: Call, name: str, transfer: "Transfer") -> None:
        """One exchange that brings a file, or the rest of it."""
        with self._answer(call, "GET", name, transfer.headers()) as response:
            transfer.begin(response.status_code, response.headers)
            while not transfer.sink.whole:
                piece = response.raw.read1(PIECE, decode_content=False)
                if call.abandoned:
                    return
                if not piece and transfer.sink.may_end:
                    return
                if not piece:
                    raise Broken("it ends too early")
                transfer.sink.write(piece)

    def _send(self, call: Call, name: str, file: Path) -> None:
        with file.open("rb") as data, self._answer(call, "PUT", name, {}, data):
            return

    @contextmanager
    def _answer(
        self, call: Call, method: str, name: str, headers: Mapping[str, str], data: IO[bytes] | None = None
    ) -> Iterator[requests.Response]:
        """An answer that says yes; raises Broken or DriverError for any other, and for what breaks while it is read."""
        url = f"{self.base}/{name}"
        with told(f"{self.shown}/{name}"), Session(call) as used:
            for _ in range(REDIRECTS + 1):
                with used.request(
                    method,
                    url,
                    headers={"Accept-Encoding": "identity", **headers},
                    data=data,
                    auth=self._login if self._is_ours(url) else None,
                    timeout=(self.limits.connect, self.limits.silence),
                    stream=True,
                    proxies=self._proxies(url),
                    verify=self._authorities(),
                ) as response:
                    if response.status_code not in MOVED or method != "GET":
                        self._check(response.status_code, YES[method], name)
                        yield response
                        return
                    url = self._next(url, response.headers.get("Location", ""), name)
            raise self._refused(name, f"is redirected more than {REDIRECTS} times")

    def _check(self, status: int, yes: tuple[int, ...], name: str) -> None:
        """Raise what a status means that is not a yes."""
        if status in yes:
            return
        if status in GONE:
            raise DriverError(Code.NO_MODULES, f"{self.shown} has no {name}")
        if status in PASSING or status >= 500:
            raise Broken(f"the server answers {status}")
        raise self._refused(name, f"the server answers {status}")

    def _next(self, url: str, location: str, name: str) -> str:
        """Where a redirect leads; raises DriverError where we do not follow."""
        former = urlsplit(url).scheme
        try:
            parts = urlsplit(urljoin(url, location))
            sound = bool(location) and parts.port != 0
        except ValueError:
            sound = False
        if sound and parts.scheme not in ("https", former):
            raise self._refused(name, f"is redirected from {former} to {parts.scheme}")
        if not (sound and parts.hostname):
            raise self._refused(name, "is redirected to what is no address")
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def _is_ours(self, url: str) -> bool:
        """Whether an address is the server that name and password are for; TLS may have come on the way."""
        ours, parts = urlsplit(self.base), urlsplit(url)
        return (parts.hostname, parts.port) == (ours.hostname, ours.port) and parts.scheme in (ours.scheme, "https")

    def _refused(self, name: str, why: str) -> DriverError:
        return DriverError(Code.REMOTE_FAILED, f"{self.shown}/{name}: {why}", REMEDY)

    def _proxies(self, url: str) -> dict[str, str]:
        """The proxy for an address, as the environment has it; lower case goes first, as in curl."""
        scheme = urlsplit(url).scheme
        names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
        proxy = next((value for name in names if (value := self._environment.get(name))), "")
        without = self._environment.get("no_proxy") or self._environment.get("NO_PROXY") or ""
        return {scheme: proxy} if proxy and not should_bypass_proxies(url, without) else {}

    def _authorities(self) -> str | bool:
        """Whose certificates are believed; raises DriverError (bad-setting) for a path that is not there."""
        for name in CA_VARIABLES:
            if path := self._environment.get(name):
                # A folder may be a list of them (SSL_CTX_load_verify_locations(3)); the first that is there is taken.
                places = path.split(":") if name == "SSL_CERT_DIR" else [path]
                there = next((place for place in places if Path(place).exists()), None)
                if there is None:
                    raise DriverError(
                        Code.BAD_SETTING, f"{name}={path}: no such file or folder", f"Correct {name}, or leave it out"
                    )
                return there
        return True


class Transfer:
    """A fetch over all its tries: what has come, and by what the server lets us go on there (RFC 9110, If-Range)."""

    def __init__(self, sink: Sink) -> None:
        """Nothing has come."""
        self.sink = sink
        self._validator = ""

    def headers(self) -> dict[str, str]:
        """Ask for the rest if the file is the same still, else for all of it."""
        if not (self._validator and self.sink.received):
            return {}
        return {"Range": f"bytes={self.sink.received}-", "If-Range": self._validator}

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """An answer comes: the rest, or the file from its start; raises Broken for a part we did not ask for."""
        if status == TOO_FAR:
            self.forget()
            raise Broken("the server has another file than before")
        continues = status == 206
        begins = re.match(r"bytes (\d{1,15})-", headers.get("Content-Range", ""))
        if continues and not (begins and int(begins[1]) == self.sink.received and self._validator):
            self.forget()
            raise Broken("the server sends another part than we asked for")
        if not continues:
            self.forget()
        entity_tag = headers.get("ETag", "")
        self._validator = headers.get("Last-Modified", "") if entity_tag[:2] in ("", "W/") else entity_tag

    def forget(self) -> None:
        """Begin anew."""
        self.sink.restart()
        self._validator = ""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the libraries raise into Broken or DriverError, in words of ours: theirs may hold a password."""
    no_address = DriverError(Code.REMOTE_FAILED, f"{what}: the address, or that of its proxy, is not valid", REMEDY)
    try:
        yield
    except NO_ADDRESS:
        raise no_address from None
    except (requests.exceptions.RequestException, HTTPError, HTTPException, OSError) as error:
        causes = causes_of(error)
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            why = f"the server is not believed: {words(causes)}"
            raise DriverError(Code.REMOTE_FAILED, f"{what}: {why}", TLS) from None
        by_proxy = isinstance(error, requests.exceptions.ProxyError)
        raise Broken(f"the proxy is of no use: {words(causes)}" if by_proxy else words(causes)) from None
    except ValueError:  # urllib.parse's, and the codec's for a host's name; some of the others are one too
        raise no_address from None


def causes_of(error: BaseException) -> list[BaseException]:
    """An error and what is beneath it; the libraries keep that in several places."""
    found: list[BaseException] = []
    below: object = error
    while isinstance(below, BaseException) and below not in found:
        found.append(below)
        inner = [getattr(below, "reason", None), *below.args, below.__cause__, below.__context__]
        below = next((one for one in inner if isinstance(one, BaseException)), None)
    return found


def words(causes: list[BaseException]) -> str:
    """What went wrong at the bottom: the system's own words, else the kind of error."""
    for found in reversed(causes):
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
    return "timed out" if any("Timeout" in type(one).__name__ for one in causes) else type(causes[-1]).__name__
