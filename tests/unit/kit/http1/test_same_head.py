"""A head that was met before is not parsed again, and nobody can tell by what comes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kit.http1.same_head import SameHead

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-Team: b\r\n\r\n"


def message(body: bytes, head: bytes = HEAD) -> bytes:
    return head % len(body) + body


def learnt(first: bytes = b"{}") -> SameHead:
    same = SameHead()
    assert same.learn(message(first), len(first))
    return same


@given(st.binary(max_size=200), st.binary(max_size=20_000))
def test_the_body_behind_a_known_head_is_found_whatever_its_length(first, second):
    same = learnt(first)

    assert same.body_of(message(second)) == second
    assert same.length == b"%d" % len(second)


@given(st.binary(min_size=1, max_size=50), st.integers(0, 200))
def test_a_message_that_is_cut_or_followed_is_left_to_the_parser(body, cut):
    same, whole = learnt(), message(body)

    assert same.body_of(whole[: max(0, len(whole) - 1 - cut)]) is None
    assert same.body_of(whole + b"\r\n") is None
    assert same.body_of(whole + whole) is None


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"X-Team: b", b"X-Team: c"),
        HEAD.replace(b"POST", b"PUT"),
        HEAD.replace(b"%d", b"+%d"),
        HEAD.replace(b"%d", b" %d"),
        HEAD.replace(b"%d", b"0x%d"),
        HEAD.replace(b"%d\r\n", b"%d\r\nContent-Length: 0\r\n"),
        HEAD.replace(b"%d\r\n", b"%d\r\nTransfer-Encoding: chunked\r\n"),
        b"\r\n" + HEAD,
    ],
)
def test_a_head_that_differs_is_left_to_the_parser(head):
    assert learnt().body_of(message(b"{}", head)) is None


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"%d\r\n", b"%d\r\ntransfer-encoding: chunked\r\n"),
        HEAD.replace(b"%d\r\n", b"%d\r\ncontent-length: %%d\r\n") % 2,
        HEAD.replace(b"%d\r\n", b"%d\r\nContent-Length : 2\r\n"),
        HEAD.replace(b"Content-Length: %d", b"Content-Length:%d"),
        HEAD.replace(b"X-Team: b\r\n", b"X-Team: b\n"),
        HEAD.replace(b"\r\nX-Team: b\r\n\r\n", b"\nX-Team: b\n\n"),
    ],
)
def test_a_head_that_others_might_read_differently_is_not_remembered(head):
    same = SameHead()

    assert not same.learn(message(b"{}", head), 2)
    assert same.body_of(message(b"{}", head)) is None


def test_what_stands_behind_a_message_makes_it_no_example():
    same = SameHead()

    assert not same.learn(message(b"{}") + b"\r\n", 2)
    assert not same.learn(message(b"") + message(b"{}"), 2)


def test_a_client_whose_every_head_differs_is_not_looked_at_for_ever():
    same = SameHead()
    for number in range(100):
        same.learn(message(b"{}", HEAD.replace(b"X-Team: b", b"X-Trace: %d" % number)), 2)

    assert not same.learn(message(b"{}"), 2)
