"""
Downloads one file, continues it when it was cut, and checks its digest.

Belongs here: ranges, retries, limits. Does not: what the file holds, how a
connection is made (`_connection`), what lies on the disk (`_partial`).
"""

import ssl
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from random import Random

from msgspec import Struct

from pilothouse.adapters.sources._connection import Authorize, Network, get
from pilothouse.adapters.sources._disk import FreeBytes, free_bytes, require_room
from pilothouse.adapters.sources._partial import Partial
from pilothouse.domain.errors import ModelFileRefused, NotFound, OperationFailed
from pilothouse.domain.model_file import HEAD_BYTES, MAX_MODEL_BYTES, another_file
from pilothouse.kit.egress import EgressRefused
from pilothouse.kit.retry import Backoff
from pilothouse.ports.source import Progress

ATTEMPTS = 5
"""In a row that came no further than before; a download that advances may be cut as often as it likes."""
READ_BYTES = 256 * 1024
SLOWEST_BYTES = 64 * 1024
SLOW_WINDOW_S = 60.0
"""Fewer than `SLOWEST_BYTES` in this time count as cut: one byte a second would hold a pull for ever."""

CheckHead = Callable[[bytes], None]
"""Called with the first `HEAD_BYTES`; raises when the rest is not worth the download."""


class Wanted(Struct, frozen=True, kw_only=True):
    """A file to download."""

    url: str
    what: str
    """How messages name it: the address itself may hold a token and is never shown."""
    expect: str = ""
    """Its digest, where it is known."""
    check_head: CheckHead | None = None
    authorize: Authorize | None = None
    """A login for the server that the address names; no redirect gets it."""
    when_denied: str = "Download the file yourself and pull it with file:"
    """What to do about a 401 or 403."""


class Declined(OperationFailed):
    """The file is not given to us; a client with a login of its own may fare better."""


class _Cut(Exception):
    """The exchange ended early; what was received so far stays."""


class Downloader:
    def __init__(
        self,
        network: Network,
        *,
        free: FreeBytes = free_bytes,
        max_bytes: int = MAX_MODEL_BYTES,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._free = free
        self._max_bytes = max_bytes
        self._sleep = sleep
        self._monotonic = monotonic
        self._random = Random()  # noqa: S311 # jitter, not a secret

    def fetch(self, wanted: Wanted, target: Path, progress: Progress) -> str:
        """
        Download to `target` and return the digest. Until it is whole it lies in `<target>.part`.

        Raises:
            NotFound: The server has no such file.
            ModelFileRefused: Another digest than expected, too large, or a bad beginning.
            OperationFailed: The network or the disk failed; `Declined` where the server or the
                policy said no.
        """
        part = Partial(target, what=wanted.what)
        was_continued = part.size_bytes > 0
        digest = self._receive_all(wanted, part, progress)
        if wanted.expect and digest != wanted.expect and was_continued:
            # The earlier half may be the damaged one: once more, from nothing.
            part.discard()
            digest = self._receive_all(wanted, part, progress)
        if wanted.expect and digest != wanted.expect:
            part.discard()
            raise another_file(wanted.what, found=digest, expected=wanted.expect)
        part.finish()
        return digest

    def _receive_all(self, wanted: Wanted, part: Partial, progress: Progress) -> str:
        backoff = Backoff(ceiling_s=8.0)
        failures = 0
        most = part.size_bytes
        while True:
            try:
                self._receive(wanted, part, progress)
                return part.digest()
            except _Cut as exc:
                failures = 1 if part.size_bytes > most else failures + 1
                most = max(most, part.size_bytes)
                if failures >= ATTEMPTS:
                    raise OperationFailed(
                        f"{wanted.what}: the download failed {failures} times in a row, last: {exc}. "
                        f"Check the network; the same command continues from the {part.size_bytes} bytes here"
                    ) from exc
                self._sleep(backoff.delay_s(failures, self._random))

    def _receive(self, wanted: Wanted, part: Partial, progress: Progress) -> None:
        """One exchange: the rest of the file, or all of it."""
        try:
            with get(
                wanted.url, _headers(wanted, part), self._network, authorize=wanted.authorize
            ) as response:
                total = self._begin(response, wanted, part)
                self._store(response, wanted, part, progress, total=total)
        except EgressRefused as exc:
            raise Declined(f"{wanted.what}: not connected: {exc}") from exc
        except ssl.SSLCertVerificationError as exc:
            raise Declined(
                f"{wanted.what}: the server's certificate is not trusted ({exc.verify_message}). "
                f"If your network has its own authority, set SSL_CERT_FILE to its certificates"
            ) from exc
        except (HTTPException, OSError) as exc:
            raise _Cut(str(exc) or type(exc).__name__) from exc

    def _begin(self, response: HTTPResponse, wanted: Wanted, part: Partial) -> int:
        """Check the answer's head, make the partial file fit it, and return the total size or 0."""
        if response.status == 416:
            part.discard()
            raise _Cut("the server does not know the rest of the partial file; it starts anew")
        _check_status(response, wanted)
        rest = response.length or 0
        if response.status == 206:
            have = part.size_bytes
            total = have + rest
            if response.getheader("Content-Range") not in {f"bytes {have}-{total - 1}/{total}"}:
                part.discard()
                raise _Cut("the server answered with another range than was asked for; it starts anew")
        else:
            part.begin(response)
            total = rest
        if total > self._max_bytes:
            raise ModelFileRefused(f"{wanted.what} has {total} bytes; at most {self._max_bytes} are accepted")
        require_room(part.folder, rest, wanted.what, free=self._free)
        return total

    def _store(
        self, response: HTTPResponse, wanted: Wanted, part: Partial, progress: Progress, *, total: int
    ) -> None:
        if wanted.check_head and part.size_bytes == 0:
            head = _read_head(response)
            wanted.check_head(head)
            part.append(head)
        done = part.size_bytes
        pace = _Pace(self._monotonic)
        while chunk := response.read1(READ_BYTES):
            done += len(chunk)
            if done > (total or self._max_bytes):
                part.discard()
                raise ModelFileRefused(f"{wanted.what} is larger than {total or self._max_bytes} bytes")
            part.append(chunk)
            progress(wanted.what, done, total)
            pace.advance(len(chunk))
        if done < total:
            raise _Cut(f"the connection ended after {done} of {total} bytes")


class _Pace:
    """Gives up an exchange that goes on without getting on."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._bytes = 0

    def advance(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._monotonic() - self._since < SLOW_WINDOW_S:
            return
        if self._bytes < SLOWEST_BYTES:
            raise _Cut(f"only {self._bytes} bytes came in {SLOW_WINDOW_S:g} s")
        self._since, self._bytes = self._monotonic(), 0


def _headers(wanted: Wanted, part: Partial) -> dict[str, str]:
    """Ask for the rest where two halves can be proven to belong together, else for all of it."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "pilothouse"}
    etag = part.etag()
    if part.size_bytes >= HEAD_BYTES and (etag or wanted.expect):
        headers["Range"] = f"bytes={part.size_bytes}-"
        if etag:
            headers["If-Range"] = etag
    return headers


def _check_status(response: HTTPResponse, wanted: Wanted) -> None:
    status, what = response.status, wanted.what
    if status in {404, 410}:
        raise NotFound(f"{what}: the server has no such file (HTTP {status}); check the address")
    if status in {401, 403, 407}:
        login = "does not accept the login" if wanted.authorize else "wants a login"
        had = "" if wanted.authorize else ", and Pilothouse sends no credentials"
        raise Declined(f"{what}: the server {login} (HTTP {status}){had}. {wanted.when_denied}")
    if status == 412:
        raise _Cut("the file was replaced by another while it was being fetched; pull it again")
    if status in {408, 425, 429} or status >= 500:
        raise _Cut(f"HTTP {status} {response.reason}")
    if status not in {200, 206}:
        raise Declined(f"{what}: the server answered HTTP {status} {response.reason}, not with a file")
    if (response.getheader("Content-Encoding") or "identity") != "identity":
        raise OperationFailed(f"{what}: the server sends it compressed although it was asked not to")


def _read_head(response: HTTPResponse) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES and (chunk := response.read1(HEAD_BYTES - len(head))):
        head += chunk
    return head
