"""
Bytes that two servers could read differently are refused, never guessed at.

The shapes are the published ones of request smuggling. Each is followed by a
canary request; if that is ever answered, somebody's bytes became somebody
else's request. One answer of 400 or a closed connection is what may come.
"""

import asyncio

import pytest

from http1_rig import answers, connected, exchange, serving
from pilothouse.kit.http1.message import Limits, Request
from pilothouse.kit.http1.responder import Responder

CANARY = b"GET /canary HTTP/1.1\r\nHost: a\r\n\r\n"


def post(headers: bytes, body: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    return b"POST /first HTTP/" + version + b"\r\nHost: a\r\n" + headers + b"\r\n\r\n" + body


def coded(value: bytes) -> bytes:
    """A body in one chunk, under this `Transfer-Encoding` line's value."""
    return post(b"Transfer-Encoding:" + value, b"3\r\nabc\r\n0\r\n\r\n")


def chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body)


def get(headers: bytes = b"", *, target: bytes = b"/first", host: bytes = b"Host: a\r\n") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + host + headers + b"\r\n"


BAD = {
    "both lengths, the length first": post(b"Content-Length: 6\r\nTransfer-Encoding: chunked", b"0\r\n\r\nG"),
    "both lengths, the coding first": post(
        b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"8\r\nSMUGGLED\r\n0\r\n\r\n"
    ),
    "coding not chunked": coded(b" xchunked"),
    "coding identity": coded(b" identity"),
    "coding before chunked": coded(b" gzip, chunked"),
    "identity before chunked": coded(b" identity, chunked"),
    "nothing before chunked": coded(b" , chunked"),
    "nothing after chunked": coded(b" chunked,"),
    "chunked is not the last": coded(b" chunked, identity"),
    "chunked twice": coded(b" chunked, chunked"),
    "a parameter on chunked": coded(b" chunked;q=1"),
    "chunked in quotes": coded(b' "chunked"'),
    "vertical tab before chunked": coded(b" \x0bchunked"),
    "vertical tab after chunked": coded(b" chunked\x0b"),
    "a cow before chunked": coded(b" cow\r\nTransfer-Encoding: chunked"),
    "a cow after chunked": coded(b" chunked\r\nTransfer-Encoding: cow"),
    "two lines of chunked": coded(b" chunked\r\nTransfer-Encoding: chunked"),
    "chunked on the next line": coded(b"\r\n chunked"),
    "chunked folded": coded(b" chun\r\n ked"),
    "no coding": coded(b""),
    "space before the coding's colon": post(b"Transfer-Encoding : chunked", b"0\r\n\r\n"),
    "tab before the coding's colon": post(b"Transfer-Encoding\t: chunked", b"0\r\n\r\n"),
    "space before the name": post(b"X: y\r\n Transfer-Encoding: chunked", b"0\r\n\r\n"),
    "coding in HTTP/1.0": post(b"Transfer-Encoding: chunked", b"0\r\n\r\n", version=b"1.0"),
    "length twice, the same": post(b"Content-Length: 5\r\nContent-Length: 5", b"hello"),
    "length twice, differing": post(b"Content-Length: 5\r\nContent-Length: 6", b"hello!"),
    "length as a list": post(b"Content-Length: 5, 5", b"hello"),
    "length with a plus": post(b"Content-Length: +5", b"hello"),
    "length negative": post(b"Content-Length: -5", b"hello"),
    "length in hex": post(b"Content-Length: 0x5", b"hello"),
    "length with an underscore": post(b"Content-Length: 0_5", b"hello"),
    "length as a float": post(b"Content-Length: 5.0", b"hello"),
    "length empty": post(b"Content-Length:", b"hello"),
    "length beyond 64 bits": post(b"Content-Length: 99999999999999999999999", b"hello"),
    "length with a NUL": post(b"Content-Length: 5\x00", b"hello"),
    "length folded": post(b"Content-Length:\r\n 5", b"hello"),
    "space before the length's colon": post(b"Content-Length : 5", b"hello"),
    "chunk size with a plus": chunks(b"+3\r\nabc\r\n0\r\n\r\n"),
    "chunk size in 0x": chunks(b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk size negative": chunks(b"-3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with a space": chunks(b"3 \r\nabc\r\n0\r\n\r\n"),
    "chunk size not hex": chunks(b"xyz\r\nabc\r\n0\r\n\r\n"),
    "chunk size beyond 64 bits": chunks(b"fffffffffffffffff\r\nabc"),
    "chunk ends in bare LF": chunks(b"3\nabc\n0\n\n"),
    "chunk longer than its size": chunks(b"3\r\nabcd\r\n0\r\n\r\n"),
    "chunk shorter than its size": chunks(b"5\r\nab\r\n0\r\n\r\nGET /canary HTTP/1.1\r\nHost: a\r\n\r\n"),
    "chunk extension ends in bare LF": chunks(b"3;a\nabc\r\n0\r\n\r\n"),
    "chunk extension with CRLF in quotes": chunks(b'3;a="\r\nX"\r\nabc\r\n0\r\n\r\n'),
    "chunk extension with a NUL": chunks(b"3;\x00\r\nabc\r\n0\r\n\r\n"),
    "folded header": get(b"X: a\r\n b\r\n"),
    "bare LF after the request line": b"GET /first HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": get(b"X: a\nY: b\r\n"),
    "bare CR in a header": get(b"X: a\rY: b\r\n"),
    "NUL in a value": get(b"X: a\x00b\r\n"),
    "NUL in a name": get(b"X\x00: a\r\n"),
    "a header without a name": get(b": a\r\n"),
    "a header without a colon": get(b"nonsense\r\n"),
    "space before a colon": get(b"X : a\r\n"),
    "a target in absolute form": get(target=b"http://a/first"),
    "a target that is a star": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is an authority": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel to a path": b"CONNECT /first HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": get(host=b""),
    "two hosts": get(b"Host: b\r\n"),
    "an unknown version": b"GET /first HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /first\r\n",
    "a length as a trailer": chunks(b"3\r\nabc\r\n0\r\nContent-Length: 50\r\n\r\n"),
    "a coding as a trailer": chunks(b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "a tab in the request line": b"GET\t/first HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control character in the target": get(target=b"/fi\x01rst"),
    "a raw byte in the target": get(target=b"/\xe9"),
    "TLS where none is": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
async def test_a_request_that_could_be_read_in_two_ways_is_refused(name: str):
    async with serving(limits=Limits(header_timeout_s=0.3, body_timeout_s=0.3)) as door:
        said, closed = await exchange(door.port, BAD[name] + CANARY, silence_s=2.0)

    assert closed
    assert [answer.status for answer in said] in ([400], [])
    assert "/canary" not in door.paths
    assert all(answer.headers["connection"] == "close" for answer in said)


GOOD = {
    "a plain length": post(b"Content-Length: 3", b"abc"),
    "leading zeros": post(b"Content-Length: 0003", b"abc"),
    "a length with a space after it": post(b"Content-Length: 3 ", b"abc"),
    "chunked": chunks(b"3\r\nabc\r\n0\r\n\r\n"),
    "chunked in capitals": coded(b" CHUNKED"),
    "chunked with a tab before it": coded(b"\tchunked"),
    "a chunk extension": chunks(b'3;name="value"\r\nabc\r\n0\r\n\r\n'),
    "several chunks": chunks(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"),
    "a trailer": chunks(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"),
}


@pytest.mark.parametrize("name", GOOD)
async def test_a_request_that_is_clear_is_answered_and_so_is_the_next(name: str):
    async with serving() as door:
        said, closed = await exchange(door.port, GOOD[name] + CANARY)

    assert [answer.body for answer in said] == [b"POST /first abc", b"GET /canary "]
    assert not closed


async def test_what_follows_a_refused_request_is_never_read():
    """However much comes after it, and however late."""
    async with serving() as door, connected(door.port) as raw:
        await raw.send(BAD["both lengths, the length first"])
        for _ in range(20):
            try:
                await raw.send(CANARY)
            except ConnectionError:
                break
            await asyncio.sleep(0.005)
        got = await raw.read_until_closed()

    assert [answer.status for answer in answers(got)] == [400]
    assert door.requests == []


async def test_a_malformed_request_behind_a_good_one_gets_no_answer_of_its_own():
    async def slow(request: Request, responder: Responder) -> None:
        await asyncio.sleep(0.05)
        responder.send(200, b"", b"ok")

    async with serving(slow) as door:
        said, closed = await exchange(door.port, CANARY + BAD["length with a plus"] + CANARY)

    assert closed
    assert len(said) <= 1
    assert door.paths == ["/canary"]


@pytest.mark.parametrize("name", ["host", "authorization", "x-pilothouse-subject"])
async def test_a_trailer_is_no_header(name: str):
    """RFC 9110, section 6.5.1: merging trailers lets a body speak for its head."""
    trailer = name.encode() + b": planted\r\n"

    async with serving() as door:
        said, _ = await exchange(door.port, chunks(b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n") + CANARY)

    assert [answer.status for answer in said] == [200, 200]
    assert b"planted" not in b"".join(door.requests[0].headers.values())
