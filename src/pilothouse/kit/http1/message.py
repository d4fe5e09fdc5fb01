"""Requests and response heads as the server and its handlers see them."""

from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network
from typing import Final

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Every bound of the server. Times in seconds, sizes in bytes."""

    max_head_bytes: int = 32 * 1024
    max_headers: int = 100
    max_body_bytes: int = 4 * 1024 * 1024
    max_arriving_bytes: int = 256 * 1024 * 1024
    """Of all bodies that are not whole yet, those under 64 KiB left out; beyond it larger ones get 503."""
    max_connections: int = 10_000
    max_pipelined: int = 8
    """Requests that may wait behind the one being answered, on one connection."""
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keepalive_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    write_buffer_bytes: int = 64 * 1024
    """A writer is told to wait above this."""
    trusted_proxies: tuple[Network, ...] = ()
    proxy_protocol: bool = False


class HeadNotes:
    """Kept with a head while its connection repeats it: who reads the head leaves here what he found."""

    __slots__ = ("caller",)

    def __init__(self) -> None:
        self.caller: object = None


class Request:
    """One request, complete with its body. Header names are lower case; nobody changes headers."""

    __slots__ = (
        "body",
        "headers",
        "is_http11",
        "keep_alive",
        "method",
        "notes",
        "path",
        "peer",
        "query",
        "received_ns",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        headers: dict[bytes, bytes],
        peer: str,
        *,
        keep_alive: bool = True,
        is_http11: bool = True,
        notes: HeadNotes | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.peer = peer
        self.keep_alive = keep_alive
        self.is_http11 = is_http11
        self.notes = notes or HeadNotes()
        self.body = b""
        self.received_ns = 0
        """`time.perf_counter_ns()` when the last byte of the request was here."""

    def again(self) -> "Request":
        """Another request with the same head."""
        return Request(
            self.method,
            self.path,
            self.query,
            self.headers,
            self.peer,
            keep_alive=self.keep_alive,
            is_http11=self.is_http11,
            notes=self.notes,
        )


STATUS_LINES: Final[dict[int, bytes]] = {
    s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus
} | {
    499: b"HTTP/1.1 499 Client Closed Request\r\n",
    529: b"HTTP/1.1 529 Site Overloaded\r\n",
}


class DateHeader:
    """The `date` header's line, made once a second."""

    __slots__ = ("_second", "line")

    def __init__(self) -> None:
        self._second = -1
        self.line = b""
        self.refresh(0.0)

    def refresh(self, now: float) -> None:
        if int(now) != self._second:
            self._second = int(now)
            self.line = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"


DATE: Final[DateHeader] = DateHeader()


def plain_response(status: int, text: str, path: str = "") -> bytes:  # noqa: ARG001 - for who speaks several protocols
    """A whole answer of the server itself, after which the connection closes."""
    return closing_response(status, b"content-type: text/plain; charset=utf-8\r\n", (text + "\n").encode())


def closing_response(status: int, headers: bytes, body: bytes) -> bytes:
    """`headers` are complete lines, each with its CRLF."""
    return b"%s%s%sconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (
        STATUS_LINES[status],
        DATE.line,
        headers,
        len(body),
        body,
    )
