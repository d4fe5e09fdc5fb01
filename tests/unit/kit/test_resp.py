"""RESP addresses and replies, read from whatever bytes come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kit.resp import RespAddress, RespError, parse_address, read_reply


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", RespAddress(host="host")),
        ("redis://u%40x@host:7000/2", RespAddress(host="host", port=7000, user="u@x", database=2)),
        ("rediss://host", RespAddress(host="host", tls=True)),
        ("unix:///run/r.sock", RespAddress(path="/run/r.sock")),
    ],
)
def test_addresses(url, expected):
    assert parse_address(url) == expected


@pytest.mark.parametrize(
    "url", ["", "host", "http://a", "redis://", "redis://a:x", "redis://a/db", "unix://"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="Redis"):
        parse_address(url)


def test_a_password_has_no_place_in_an_address_and_is_not_repeated():
    with pytest.raises(ValueError, match="password") as refused:
        parse_address("redis://u:hunter2@host")

    assert "hunter2" not in str(refused.value)


replies = st.one_of(
    st.binary(max_size=50).map(lambda b: (b, b"$%d\r\n%s\r\n" % (len(b), b))),
    st.integers(-(10**9), 10**9).map(lambda i: (i, b":%d\r\n" % i)),
    st.just((None, b"$-1\r\n")),
    st.just((b"OK", b"+OK\r\n")),
)


@given(st.lists(replies, max_size=5), st.binary(max_size=10))
def test_replies_are_read_one_by_one_and_only_when_whole(sent, rest):
    buffer = bytearray(b"".join(data for _, data in sent))
    got = []
    while buffer:
        for cut in range(len(buffer)):
            partial = read_reply(buffer[:cut])
            assert partial is None or partial[1] <= cut
        reply, size = read_reply(buffer)
        got.append(reply)
        del buffer[:size]

    assert got == [reply for reply, _ in sent]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_not_yet_one_or_refused(data):
    try:
        found = read_reply(data)
    except RespError:
        return
    assert found is None or 0 < found[1] <= len(data)
