"""A server as its client knows it: where it listens, and how long each step may take."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds, each from the event it names. The whole exchange is bounded by each call's `total_s`."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    idle_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens: a Unix socket, or a host (an IP that was checked) and port."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False
    server_name: str = ""
    """Name for TLS and the `host` header, where it is not the IP."""

    @property
    def host_header(self) -> str:
        return "localhost" if self.path else (self.server_name or f"{self.host}:{self.port}")
