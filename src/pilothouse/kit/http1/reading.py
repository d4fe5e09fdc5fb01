"""
From bytes to requests: the parser's callbacks, and what is refused on the way.

Framing is strict, because a request that two servers read differently is how
requests are smuggled. Order, deadlines and answers are the connection's, in
`server.py`, which is a reader of this kind.
"""

import time
from typing import Any, Final, cast

import httptools

from pilothouse.kit.http1.message import Limits, Request
from pilothouse.kit.http1.proxy import ProxyHeader, client_address
from pilothouse.kit.http1.same_head import SameHead

_SMALL_BYTES: Final = 64 * 1024
_now: Final = time.monotonic
_OF_UPGRADES: Final = frozenset({b"upgrade", b"connection", b"http2-settings"})


class Refused(Exception):
    """A request that the server answers itself, before any handler."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Arriving:
    """Bytes of bodies that are not whole yet, over all connections of a server."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0


class RequestReader:
    """What is known of the request that is arriving. Callbacks are named by httptools."""

    def __init__(self, limits: Limits, arriving: Arriving) -> None:
        self._limits = limits
        self._arriving = arriving
        self._counted = 0
        """What of `_body_bytes` is in `_arriving`."""
        self._parser: Any = httptools.HttpRequestParser(self)
        self._peer = ""
        self._proxy = ProxyHeader() if limits.proxy_protocol else None
        self._in_head = False
        self._head_bytes = 0
        """Bytes since the last of a body or the last request's end: of heads, chunk lines and trailers."""
        self._is_behind_another = False
        """A request ended in the piece in which this head began: `_head_bytes` does not count all of it."""
        self._read_by: float | None = None
        """When the part that is arriving must be there; looked at while nothing is being answered."""
        self._url = b""
        self._lines: list[tuple[bytes, bytes]] = []
        """
        The head's fields as they came, and trailers, which are never looked at.

        They must not speak for the head (RFC 9110, section 6.5.1): `_headers` is made before they come.
        """
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._request: Request | None = None
        """A request whose head is there, and whose body is not."""
        self._last = False
        self._is_done = False
        """Nothing that still comes is looked at."""
        self._refusal: tuple[int, str] | None = None
        """What a callback raised: the parser has an error of its own to tell."""
        self._same = SameHead()
        self._known: Request | None = None
        """The request whose head `_same` knows, with the length that came last."""
        self._known_length = b""
        self._came: Request | None = None
        """A request that became whole in what the parser took last."""

    @property
    def is_between(self) -> bool:
        """No byte of a request is there that is not whole."""
        return not (self._in_head or self._head_bytes) and self._request is None

    def take_again(self, data: bytes) -> bool:
        """Take a whole request with the head of an earlier one; False where the parser has to read it."""
        known, self._came = self._known, None
        if known is None or self._last or not self.is_between:
            return False
        body = self._same.body_of(data)
        if body is None or len(body) > self._limits.max_body_bytes:
            return False
        length = self._same.length
        if length is not self._known_length:
            known.headers = {**known.headers, b"content-length": length}
            self._known_length = length
        self._request = known.again()
        self._body = [body]
        return True

    def learn_head(self, request: Request, data: bytes) -> None:
        """Remember the head of a request that was all of `data`."""
        fits = len(data) - len(request.body) + 16 <= self._limits.max_head_bytes
        learns = fits and request.keep_alive and b"expect" not in request.headers
        self._known = request.again() if learns and self._same.learn(data, len(request.body)) else None
        self._known_length = self._same.length

    def _refused(self, status: int, text: str) -> Refused:
        self._refusal = (status, text)
        return Refused(status, text)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._lines = []
        self._body = []
        self._body_bytes = 0
        self._read_by = _now() + self._limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        parser = self._parser
        lines = self._lines
        headers = {name.lower(): value for name, value in lines}
        if len(headers) < len(lines) or len(lines) > self._limits.max_headers:
            headers = self._joined(lines)
        self._headers = headers
        if self._head_bytes > self._limits.max_head_bytes or self._is_behind_another:
            self._check_head(headers)
        keep_alive = parser.should_keep_alive()
        # Asking for the version costs; without a connection header only 1.1 keeps alive.
        is_http11 = (keep_alive and b"connection" not in headers) or parser.get_http_version() == "1.1"
        if self._url[:1] != b"/":
            raise self._refused(400, "the request target must be a path")
        if is_http11 and b"host" not in headers:
            raise self._refused(400, "the host header is missing")
        if self._last:
            raise self._refused(400, "a request came after connection: close")
        if b"upgrade" in headers and parser.should_upgrade():
            return  # `read_as_plain` begins it anew
        method = parser.get_method().decode()
        if method == "CONNECT":
            raise self._refused(400, "this server is no proxy")
        path, _, query = self._url.decode("latin-1").partition("?")
        peer = self._peer
        if self._limits.trusted_proxies:
            peer = client_address(peer, headers.get(b"x-forwarded-for"), self._limits.trusted_proxies)
        self._request = request = Request(
            method, path, query, headers, peer, keep_alive=keep_alive and is_http11, is_http11=is_http11
        )
        length = headers.get(b"content-length")
        if length is not None:
            if int(length) > self._limits.max_body_bytes:
                raise self._refused(413, f"the request body is over {self._limits.max_body_bytes} bytes")
        elif b"transfer-encoding" in headers:
            self._check_coding(request)
        if b"expect" in headers and is_http11 and headers[b"expect"].lower() == b"100-continue":
            self.invite_body()
        self._read_by = _now() + self._limits.body_timeout_s

    def _joined(self, lines: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        """Fields by name, lower case, several values of one joined (RFC 9110, section 5.3)."""
        if len(lines) > self._limits.max_headers:
            raise self._refused(431, "too many request header fields")
        headers: dict[bytes, bytes] = {}
        for name, value in lines:
            name = name.lower()
            if name in headers:
                if name == b"host":
                    raise self._refused(400, "the host header is there twice")
                value = headers[name] + b", " + value
            headers[name] = value
        return headers

    def _check_head(self, headers: dict[bytes, bytes]) -> None:
        """A head that came in one piece, with a body perhaps: measured by its parts."""
        size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers.items())
        if size > self._limits.max_head_bytes:
            raise self._refused(431, "request header fields too large")

    def on_body(self, data: bytes) -> None:
        self._head_bytes = 0
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.max_body_bytes:
            raise self._refused(413, f"the request body is over {self._limits.max_body_bytes} bytes")
        self._body.append(data)

    def read_as_plain(self, rest: bytes) -> None:
        """
        Read a request that wished for an upgrade again without that wish, and as the last one.

        A server may ignore it (RFC 9110, section 7.8). The parser takes what follows
        the head for another protocol; it is the body, which Java's client sends along.
        """
        old = self._parser
        lines = [b"%s: %s\r\n" % item for item in self._headers.items() if item[0] not in _OF_UPGRADES]
        head = b"%s %s HTTP/%s\r\n%sconnection: close\r\n\r\n" % (
            old.get_method(), self._url, old.get_http_version().encode(), b"".join(lines),
        )  # fmt: skip
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(head + rest)

    def forget_parser(self) -> None:
        """It holds this reader's methods: a cycle, which would lie there until the collector comes."""
        self._parser = None

    def read_no_more(self) -> None:
        self._is_done = True
        self._request = None
        self._in_head = False
        self._body = []
        self.uncount_body()

    def count_body(self) -> None:
        """Take note of a body that came in part: many such must not take all memory."""
        if self._body_bytes <= _SMALL_BYTES:
            return
        self._arriving.taken += self._body_bytes - self._counted
        self._counted = self._body_bytes
        if self._arriving.taken > self._limits.max_arriving_bytes:
            raise self._refused(503, "too many large request bodies are arriving at once; try again")

    def uncount_body(self) -> None:
        self._arriving.taken -= self._counted
        self._counted = 0

    def invite_body(self) -> None:
        """Tell the client to send its body, which it asked about first."""
        raise NotImplementedError

    def take_proxy_header(self, data: bytes) -> bytes:
        """What follows the PROXY header; nothing as long as it is not whole."""
        header = cast(ProxyHeader, self._proxy)
        rest = header.feed(data)
        if rest is None:
            return b""
        if header.is_bad:
            raise self._refused(400, "malformed PROXY protocol header")
        self._peer = header.address or self._peer
        self._proxy = None
        return rest

    def _check_coding(self, request: Request) -> None:
        """Refuse what others might undo and we would not; HTTP/1.0 has no codings (RFC 9112, section 6.1)."""
        if request.headers[b"transfer-encoding"].strip().lower() != b"chunked" or not request.is_http11:
            raise self._refused(400, "the only transfer coding taken is chunked")
