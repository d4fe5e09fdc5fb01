"""
Who the client is when a proxy stands in front.

Either the PROXY protocol (its specification, versions 1 and 2) on the
connection, or `x-forwarded-for` from an address that is trusted. Neither is
believed unless a setting says so.
"""

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from pilothouse.kit.http1.message import Network

_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_MAX = 107


class ProxyHeader:
    """Takes the PROXY header off the first bytes of a connection."""

    __slots__ = ("_buffer", "address", "is_bad")

    def __init__(self) -> None:
        self._buffer = b""
        self.address = ""
        """The client's address; empty where the proxy speaks for itself (LOCAL, UNKNOWN)."""
        self.is_bad = False

    def feed(self, data: bytes) -> bytes | None:
        """Return what follows the header once it is whole (or bad), else None."""
        self._buffer += data
        head = self._buffer
        if head.startswith(_V2_SIGNATURE):
            return self._version_2(head)
        if len(head) < len(_V2_SIGNATURE) and _V2_SIGNATURE.startswith(head):
            return None
        if head.startswith(b"PROXY ") or (len(head) < 6 and b"PROXY ".startswith(head)):
            return self._version_1(head)
        return self._bad()

    def _version_1(self, head: bytes) -> bytes | None:
        line, found, rest = head.partition(b"\r\n")
        if not found:
            return None if len(head) <= _V1_MAX else self._bad()
        words = line.decode("latin-1").split(" ")
        if len(line) > _V1_MAX or len(words) < 2 or words[1] not in ("TCP4", "TCP6", "UNKNOWN"):
            return self._bad()
        if words[1] == "UNKNOWN":
            return rest
        if len(words) != 6:
            return self._bad()
        return rest if self._set_address(words[2]) else self._bad()

    def _version_2(self, head: bytes) -> bytes | None:
        if len(head) < 16:
            return None
        command, family = head[12], head[13]
        length = int.from_bytes(head[14:16], "big")
        if len(head) < 16 + length:
            return None
        body, rest = head[16 : 16 + length], head[16 + length :]
        if command >> 4 != 2 or command & 15 > 1:
            return self._bad()
        size = {1: 4, 2: 16}.get(family >> 4)
        if command & 15 == 0 or size is None:
            return rest
        if len(body) < 2 * size + 4:
            return self._bad()
        self.address = str(ip_address(body[:size]))
        return rest

    def _set_address(self, text: str) -> bool:
        try:
            self.address = str(ip_address(text))
        except ValueError:
            return False
        return True

    def _bad(self) -> bytes:
        self.is_bad = True
        return b"\x00"


def client_address(peer: str, forwarded_for: bytes | None, trusted: Sequence[Network]) -> str:
    """
    The nearest address that is not a trusted proxy's.

    Reads `x-forwarded-for` from the right, for only what trusted proxies wrote
    can be believed; a peer that is not trusted is the client itself.
    """
    if not trusted or forwarded_for is None or not _is_trusted(peer, trusted):
        return peer
    for part in reversed(forwarded_for.decode("latin-1").split(",")):
        candidate = part.strip()
        if not _is_trusted(candidate, trusted):
            return candidate if _is_address(candidate) else peer
    return peer


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_trusted(text: str, trusted: Sequence[Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in trusted)
