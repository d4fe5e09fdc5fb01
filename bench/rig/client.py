"""
A small blocking client over a TCP or a Unix socket, for the real engine, which is slower than it.

It reads a stream token by token and can hang up at any moment, which is the
thing that libraries make hard.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

TIMEOUT_S = 120.0


class Door:
    """Where to ask: `unix:<path>` or `http://host:port[/v1]`, and the key to show."""

    def __init__(self, address: str, *, key: str = "") -> None:
        self.address, self.key = address, key

    def connect(self) -> socket.socket:
        if self.address.startswith("unix:"):
            door = socket.socket(socket.AF_UNIX)
            door.settimeout(TIMEOUT_S)
            door.connect(self.address.removeprefix("unix:"))
            return door
        host, port = self.address.removeprefix("http://").split("/")[0].split(":")
        return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> socket.socket:
        """Send a request; the caller reads the answer, or hangs up."""
        data = json.dumps(body).encode() if body is not None else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
        )
        if self.key:
            head += f"Authorization: Bearer {self.key}\r\n"
        door = self.connect()
        door.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
        return door

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer's JSON, whole."""
        with self.send(method, path, body) as door:
            head, _, rest = read_all(door).partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"{path}: {head[:200]!r} {rest[:500]!r}")
        return json.loads(unchunked(rest) if b"chunked" in head.lower() else rest)

    def stream(
        self, path: str, body: dict[str, Any], *, may_just_end: bool = False
    ) -> Iterator[dict[str, Any]]:
        """The events of a stream, up to `[DONE]`, or to its end where a server says no such word."""
        with self.send("POST", path, {**body, "stream": True}) as door, door.makefile("rb") as lines:
            status = lines.readline()
            if b" 200 " not in status:
                raise RuntimeError(f"{path}: {status!r} {lines.read(2000)!r}")
            for line in lines:
                if line.startswith(b"data: [DONE]"):
                    return
                if line.startswith(b'data: {"error"'):
                    raise RuntimeError(f"{path}: the stream ended in {line!r}")
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        if not may_just_end:
            raise RuntimeError(f"{path}: the stream ended without [DONE]")


def read_all(door: socket.socket) -> bytes:
    parts = []
    while part := door.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def unchunked(data: bytes) -> bytes:
    """A body in chunked coding, put together (RFC 9112, 7.1)."""
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        parts.append(data[:length])
        data = data[length + 2 :]
        if not length:
            break
    return b"".join(parts)
