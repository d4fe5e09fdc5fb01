"""
Where an outbound connection may go: the one policy for all of them.

Belongs here: reading an address, resolving its host once, and refusing what
leads inside. Does not: the exchange itself. The one idea: a name is resolved
once, every answer is checked, and the caller connects to the checked addresses
and to nothing else, so that a second answer of the name server changes nothing.

Source: the IANA special-purpose address registries (RFC 6890), RFC 6052 for
addresses that embed an IPv4 address, and the WHATWG URL rules for odd IPv4 forms.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from msgspec import Struct

IP = IPv4Address | IPv6Address
Lookup = Callable[[str, int], Iterable[str]]
"""(host, port) -> its addresses; raises OSError when there is none."""


class EgressRefused(ValueError):
    """An address that must not be connected to; the text says why."""


class NameNotFound(OSError):
    """The name has no address, or the name server did not answer."""


class Address(Struct, frozen=True):
    """Where an URL points, taken apart. `host` is lower case, ASCII, without a trailing dot."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query, as the request line has them."""

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS.get(self.scheme) else f"{name}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host_header}{self.target}"


class Pinned(Struct, frozen=True):
    """An address that was checked: connect to this, not to the name."""

    ip: str
    port: int


_PORTS = {"https": 443, "http": 80}
_MAX_URL_CHARS = 8192
_HOST_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

_METADATA_NAMES = frozenset(
    {"metadata", "metadata.goog", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
)
_INSIDE_NAME = re.compile(r"(?:.*\.)?(?:localhost|internal|local|home\.arpa|svc|svc\.cluster)")


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)


_NEVER = _networks(
    "169.254.0.0/16",  # link-local, the metadata services of most clouds
    "100.100.100.200/32",  # metadata of Alibaba Cloud, within the shared range
    "168.63.129.16/32",  # Azure's host agent: a public number that leads inside
    "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
    "0.0.0.0/8",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "fd00:ec2::/32",  # metadata of AWS
    "fd20:ce::/32",  # metadata of Google Cloud
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "::/128",
)
"""Refused whatever is allowed: nothing that an operator means to reach is here, and credentials are."""

_PRIVATE = _networks(
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "::1/128",
    "fc00::/7",
    "64:ff9b:1::/48",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
)
_GLOBAL_V6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")


def check_address(ip: str | IP, *, allow_private: bool) -> IP:
    """
    Say whether an IP address may be connected to, and return the one that is meant.

    An IPv4 address inside an IPv6 one is judged as what it is. The translation
    prefix 64:ff9b::/96 is how a network without IPv4 reaches public addresses, so
    it passes when what it holds does; a mapped address (::ffff:0:0/96) never comes
    from an honest name server and passes only with `allow_private`.

    Raises:
        EgressRefused: It leads inside, or nowhere.
    """
    try:
        address = ip_address(ip)
    except ValueError as exc:
        raise EgressRefused(f"{ip!r} is not an IP number in its plain form") from exc
    if isinstance(address, IPv6Address):
        return _check_v6(address, allow_private=allow_private)
    _check_table(address, address, allow_private=allow_private)
    return address


def parse_url(url: str, *, schemes: Sequence[str] = ("https",), allow_private: bool = False) -> Address:
    """
    Take an URL apart and refuse every form that two readers could read differently.

    Raises:
        EgressRefused: Another scheme, credentials, an odd host or port, or a name
            that means a machine inside.
    """
    if len(url) > _MAX_URL_CHARS or re.search(r"[\x00-\x20\x7f-\x9f\\]", url):
        raise EgressRefused("the address has spaces, control characters or backslashes, or is too long")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise EgressRefused(f"the address cannot be read: {exc}") from exc
    scheme = parts.scheme.lower()
    if scheme not in schemes:
        raise EgressRefused(f"{scheme or 'no scheme'} is not allowed here; use {' or '.join(schemes)}")
    if "@" in parts.netloc:
        raise EgressRefused(
            "the address holds a user name or password; credentials do not belong in addresses"
        )
    if port == 0:
        raise EgressRefused("port 0 is nowhere")
    host = _host(parts.hostname or "", allow_private=allow_private)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii():
        raise EgressRefused("the path holds characters that must be percent-encoded")
    return Address(scheme, host, port or _PORTS[scheme], target)


def resolve(host: str, port: int, *, allow_private: bool, lookup: Lookup | None = None) -> tuple[Pinned, ...]:
    """
    Resolve once and check every answer. Blocks as long as the system's resolver does.

    Raises:
        EgressRefused: Any of the answers must not be connected to: one bad answer
            among good ones is how rebinding begins.
        NameNotFound: No answer.
    """
    try:
        answers = tuple((lookup or system_lookup)(host, port))
    except (OSError, UnicodeError) as exc:
        raise NameNotFound(f"{host} has no address: {exc}") from exc
    return _pin(host, port, answers, allow_private=allow_private)


async def resolve_async(
    host: str, port: int, *, allow_private: bool, timeout_s: float, lookup: Lookup | None = None
) -> tuple[Pinned, ...]:
    """`resolve` off the event loop; NameNotFound after `timeout_s` as well."""
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.to_thread(resolve, host, port, allow_private=allow_private, lookup=lookup)
    except TimeoutError as exc:
        raise NameNotFound(f"{host}: the name server did not answer within {timeout_s:g} s") from exc


def system_lookup(host: str, port: int) -> Iterable[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for _family, _type, _proto, _name, sockaddr in found]


def connect(pinned: Sequence[Pinned], *, timeout_s: float) -> socket.socket:
    """
    Connect to the first of the checked addresses that answers; the caller closes it.

    Raises:
        OSError: None answered.
    """
    last: OSError = NameNotFound("no address to connect to")
    for one in pinned:
        try:
            return socket.create_connection((one.ip, one.port), timeout=timeout_s)
        except OSError as exc:
            last = exc
    raise last


def _host(name: str, *, allow_private: bool) -> str:
    if "%" in name:
        raise EgressRefused("the host has a zone or an escape; write the plain name or number")
    if ":" in name:
        return str(check_address(name, allow_private=allow_private))
    try:
        host = name.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError as exc:
        raise EgressRefused(f"the host {name!r} is not a name") from exc
    if _ENDS_IN_NUMBER.fullmatch(host):
        # 127.1, 0177.0.0.1, 2130706433 and 0x7f000001 are all the same machine to a C library.
        return str(check_address(host, allow_private=allow_private))
    if len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise EgressRefused(f"the host {name!r} is not a name")
    if host in _METADATA_NAMES:
        raise EgressRefused(f"{host} is a cloud's metadata service, which is never connected to")
    if not allow_private and _INSIDE_NAME.fullmatch(host):
        raise EgressRefused(f"{host} names a machine inside; private networks are not allowed here")
    return host


def _pin(host: str, port: int, answers: Sequence[str], *, allow_private: bool) -> tuple[Pinned, ...]:
    if not answers:
        raise NameNotFound(f"{host} has no address")
    checked = []
    for answer in answers:
        try:
            checked.append(check_address(answer, allow_private=allow_private))
        except EgressRefused as exc:
            raise EgressRefused(f"{host}: {exc}") from exc
    return tuple(Pinned(str(ip), port) for ip in dict.fromkeys(checked))


def _check_v6(address: IPv6Address, *, allow_private: bool) -> IP:
    if address.scope_id:
        raise EgressRefused(f"{address} has a zone: it means an interface of this machine")
    if address.ipv4_mapped:
        if not allow_private:
            raise EgressRefused(f"{address} is an IPv4 address in disguise")
        _check_table(address.ipv4_mapped, address, allow_private=True)
        return address.ipv4_mapped
    if address in _NAT64:
        _check_table(IPv4Address(int(address) & 0xFFFFFFFF), address, allow_private=allow_private)
        return address
    _check_table(address, address, allow_private=allow_private)
    if address not in _GLOBAL_V6 and not any(address in network for network in _PRIVATE):
        raise EgressRefused(f"{address} is not a global address")
    return address


def _check_table(address: IP, shown: IP, *, allow_private: bool) -> None:
    if any(address in network for network in _NEVER):
        raise EgressRefused(f"{shown} is never connected to: link-local, metadata or reserved")
    if not allow_private and any(address in network for network in _PRIVATE):
        raise EgressRefused(f"{shown} is private; allow_private_network permits it where it is meant")
