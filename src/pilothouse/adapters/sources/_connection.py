"""
One GET or HEAD, to addresses that were checked (`kit.egress`).

Belongs here: dialling, a proxy on the way, redirects. Does not: what is done
with the answer. The one idea: each hop is checked like the first, at most five
follow, and a credential goes to the server that it is for, along no redirect.
"""

import base64
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import unquote, urljoin, urlsplit

from msgspec import Struct

from pilothouse.domain.errors import OperationFailed
from pilothouse.kit import egress
from pilothouse.kit.egress import Address, Lookup

MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}

ProxyFor = Callable[[str], str]
"""host -> URL of the proxy that leads to it, or nothing."""


Authorize = Callable[[str, Address], Mapping[str, str]]
"""(method, address) -> headers that only the first server may see: a login, a signature."""


def no_proxy(_host: str) -> str:
    return ""


class Network(Struct, frozen=True, kw_only=True):
    """How downloads leave this machine."""

    allow_private: bool = False
    proxy_for: ProxyFor = no_proxy
    """A proxy resolves names by itself, so that behind one only what is written in the address is checked."""
    tls: ssl.SSLContext | None = None
    """By default the system's certificates, or those of SSL_CERT_FILE."""
    lookup: Lookup | None = None
    timeout_s: float = 30.0
    """For connecting, and for every wait for more bytes."""
    schemes: tuple[str, ...] = ("https",)
    """`http` too only where an operator named such an address himself."""


@contextmanager
def get(
    url: str,
    headers: Mapping[str, str],
    network: Network,
    *,
    authorize: Authorize | None = None,
    method: str = "GET",
) -> Iterator[HTTPResponse]:
    """
    Open the answer to a GET, after its redirects; the connection closes with the block.

    Raises:
        EgressRefused: An address, or that of a redirect, must not be connected to.
        OperationFailed: Too many redirects, or a proxy that cannot be used.
        OSError, HTTPException: The network failed.
    """
    for hop in range(MAX_REDIRECTS + 1):
        schemes = network.schemes if hop == 0 else ("https",)
        address = egress.parse_url(url, schemes=schemes, allow_private=network.allow_private)
        connection = _connection(address, network)
        own = authorize(method, address) if authorize is not None and hop == 0 else {}
        try:
            connection.request(
                method, address.target, headers={"Host": address.host_header, **headers, **own}
            )
            response = connection.getresponse()
            if response.status not in _REDIRECTS:
                yield response
                return
            url = urljoin(address.url, response.getheader("Location") or "")
        finally:
            connection.close()
    raise OperationFailed(f"redirected more than {MAX_REDIRECTS} times: give the address that it ends at")


def _connection(address: Address, network: Network) -> HTTPConnection:
    if address.scheme == "https":
        return _PinnedConnection(address, network)
    return _PlainConnection(address, network)


class _PlainConnection(HTTPConnection):
    """As below, without TLS."""

    def __init__(self, address: Address, network: Network) -> None:
        super().__init__(address.host, address.port, timeout=network.timeout_s)
        self._address = address
        self._network = network

    def connect(self) -> None:
        self.sock = _dial(self._address, self._network)


class _PinnedConnection(HTTPSConnection):
    """An https connection that dials what was checked, and never the name."""

    def __init__(self, address: Address, network: Network) -> None:
        tls = network.tls or ssl.create_default_context()
        super().__init__(address.host, address.port, timeout=network.timeout_s, context=tls)
        self._address = address
        self._network = network
        self._tls = tls

    def connect(self) -> None:
        raw = _dial(self._address, self._network)
        try:
            self.sock = self._tls.wrap_socket(raw, server_hostname=self._address.host)
        except BaseException:
            raw.close()
            raise


def _dial(address: Address, network: Network) -> socket.socket:
    proxy = network.proxy_for(address.host)
    if proxy:
        return _dial_proxy(address, proxy, timeout_s=network.timeout_s)
    pinned = egress.resolve(
        address.host, address.port, allow_private=network.allow_private, lookup=network.lookup
    )
    return egress.connect(pinned, timeout_s=network.timeout_s)


def _dial_proxy(address: Address, proxy: str, *, timeout_s: float) -> socket.socket:
    """Ask the proxy for a tunnel; what it may reach is its operator's policy."""
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise OperationFailed("the proxy of HTTPS_PROXY must be an http:// address; others are not supported")
    connection = HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login).decode()
    connection.set_tunnel(address.host, address.port, headers=headers)
    connection.connect()
    return connection.sock
