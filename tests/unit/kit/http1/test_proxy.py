"""Whose address is believed, and whose is not."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kit.http1.proxy import ProxyHeader, client_address

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def fed(data: bytes, cut: int) -> tuple[ProxyHeader, bytes | None]:
    header = ProxyHeader()
    rest = header.feed(data[:cut])
    return header, rest if rest is not None else header.feed(data[cut:])


@given(cut=st.integers(0, 60))
def test_a_version_1_header_is_taken_off_however_it_is_cut(cut: int) -> None:
    data = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\nGET"

    header, rest = fed(data, min(cut, 43))

    assert header.address == "203.0.113.7"
    assert rest is not None
    assert rest.startswith(b"GET"[: len(rest)])


def test_a_version_2_header_gives_the_address_behind_it() -> None:
    body = (
        bytes([203, 0, 113, 9])
        + bytes([192, 0, 2, 1])
        + (40000).to_bytes(2, "big")
        + (443).to_bytes(2, "big")
    )
    data = b"\r\n\r\n\x00\r\nQUIT\n" + bytes([0x21, 0x11]) + len(body).to_bytes(2, "big") + body + b"GET"

    header = ProxyHeader()

    assert header.feed(data) == b"GET"
    assert header.address == "203.0.113.9"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 nonsense 1 2 3\r\n",
        b"PROXY TCP9 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY " + b"x" * 200,
        b"\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x00",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    header = ProxyHeader()

    header.feed(data)

    assert header.is_bad


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.1", b"1.2.3.4", "198.51.100.1"),
        ("10.0.0.1", b"1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", b"6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        ("10.0.0.1", b"not an address", "10.0.0.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("::1", b"2001:db8::5", "2001:db8::5"),
    ],
)
def test_only_a_trusted_proxy_is_believed(peer: str, forwarded: bytes | None, expected: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == expected
