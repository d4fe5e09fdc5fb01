"""
From bytes to requests: the parser's callbacks, and what is refused on the way.

Framing is strict, because a request that two servers read differently is how
requests are smuggled. Order, deadlines and answers are the connection's, in
`server.py`, which is a reader of this kind.
"""

import time
from typing import cast

import httptools

from pilothouse.kit.http1.message import Limits, Request
from pilothouse.kit.http1.proxy import ProxyHeader, client_address


class Refused(Exception):
    """A request that the server answers itself, before any handler."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class RequestReader:
    """What is known of the request that is arriving. Callbacks are named by httptools."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._peer = ""
        self._proxy = ProxyHeader() if limits.proxy_protocol else None
        self._in_head = False
        self._head_bytes = 0
        self._read_by: float | None = None
        """When the part that is arriving must be there; looked at while nothing is being answered."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._request: Request | None = None
        """A request whose head is there, and whose body is not."""
        self._last = False

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._headers = {}
        self._body = []
        self._body_bytes = 0
        self._read_by = time.monotonic() + self._limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        name = name.lower()
        if name in headers:
            value = headers[name] + b", " + value
        headers[name] = value
        if len(headers) > self._limits.max_headers:
            raise Refused(431, "too many request header fields")

    def on_headers_complete(self) -> None:
        self._in_head = False
        parser, headers = self._parser, self._headers
        keep_alive = parser.should_keep_alive()
        # Asking for the version costs; without a connection header only 1.1 keeps alive.
        is_http11 = (keep_alive and b"connection" not in headers) or parser.get_http_version() == "1.1"
        if self._url[:1] != b"/":
            raise Refused(400, "the request target must be a path")
        if is_http11 and b"host" not in headers:
            raise Refused(400, "the host header is missing")
        if self._last:
            raise Refused(400, "a request came after connection: close")
        path, _, query = self._url.decode("latin-1").partition("?")
        peer = self._peer
        if self._limits.trusted_proxies:
            peer = client_address(peer, headers.get(b"x-forwarded-for"), self._limits.trusted_proxies)
        self._request = Request(
            parser.get_method().decode(),
            path,
            query,
            headers,
            peer,
            keep_alive=keep_alive and is_http11,
            is_http11=is_http11,
        )
        self._check_body(headers)

    def _check_body(self, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.max_body_bytes:
            raise Refused(413, f"the request body is over {self._limits.max_body_bytes} bytes")
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            self.invite_body()
        self._read_by = time.monotonic() + self._limits.body_timeout_s

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.max_body_bytes:
            raise Refused(413, f"the request body is over {self._limits.max_body_bytes} bytes")
        self._body.append(data)

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
            raise Refused(400, "malformed PROXY protocol header")
        self._peer = header.address or self._peer
        self._proxy = None
        return rest
