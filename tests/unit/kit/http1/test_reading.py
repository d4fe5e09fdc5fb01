"""Requests are the same however the network cuts them, and no bytes bring the reader down."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from http1_rig import answers
from pilothouse.kit.http1.message import Limits, Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.kit.http1.server import Connection, Server

LIMITS = Limits(max_head_bytes=2000, max_body_bytes=3000)


class Wire:
    """A transport that remembers, and hangs up when it is told to."""

    def __init__(self) -> None:
        self.written = b""
        self.has_ended = self.is_gone = False
        self.connection: Connection | None = None

    def write(self, data: bytes) -> None:
        assert not self.has_ended, "something was written after the end"
        self.written += data

    def write_eof(self) -> None:
        self.has_ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.is_gone

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 4)

    def set_write_buffer_limits(self, high: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Talk:
    """What came of some bytes: the requests, what was written, and how it stands at the end."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.requests: list[Request] = []
        self.defects: list[BaseException] = []

    async def run(self, pieces: list[bytes]) -> None:
        server = Server(self._handle, limits=LIMITS, on_defect=self.defects.append)
        server.loop = asyncio.get_running_loop()
        self.wire.connection = connection = Connection(server)
        connection.connection_made(self.wire)
        for piece in pieces:
            if not self.wire.is_gone:
                connection.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(40):
            await asyncio.sleep(0)
        assert self.defects == []
        waits = connection._read_by is not None
        assert self.wire.is_gone or waits, "nothing would ever end this connection"
        self.wire.close()
        await asyncio.sleep(0)

    async def _handle(self, request: Request, responder: Responder) -> None:
        self.requests.append(request)
        responder.send(200, b"", b"")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def talk(loop: asyncio.AbstractEventLoop, data: bytes, cuts: list[int]) -> Talk:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    said = Talk()
    loop.run_until_complete(said.run([data[a:b] for a, b in pairwise(edges) if a < b]))
    return said


TOKEN = st.text("abcdefghijXYZ-_09", min_size=1, max_size=8)
VALUE = st.text("abc XYZ,;=/\"'()\t", max_size=12).map(str.strip)
NAMES = TOKEN.map(lambda name: "x-" + name.lower())
CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@st.composite
def written_requests(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A request as bytes, and what it says."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS"]))
    path, query = "/" + draw(TOKEN), draw(st.none() | TOKEN)
    headers = draw(st.dictionaries(NAMES, VALUE, max_size=5))
    pieces = draw(st.lists(st.binary(min_size=1, max_size=60), max_size=4))
    body = b"".join(pieces)
    lines = [f"{name}:{draw(st.sampled_from(['', ' ', '  ']))}{value}" for name, value in headers.items()]
    if draw(st.booleans()):
        framing, sent = f"Content-Length: {len(body)}", body
    else:
        framing = "Transfer-Encoding: chunked"
        ending = draw(st.sampled_from([b"", b";a=b", b';a="b c"']))
        sent = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), ending, piece) for piece in pieces) + b"0\r\n\r\n"
    at = draw(st.integers(0, len(lines)))
    lines.insert(at, framing)
    target = path + ("" if query is None else "?" + query)
    head = f"{method} {target} HTTP/1.1\r\nHost: a\r\n" + "".join(line + "\r\n" for line in lines)
    says = {"method": method, "path": path, "query": query or "", "headers": headers, "body": body}
    return head.encode() + b"\r\n" + sent, says


def said(request: Request) -> dict[str, Any]:
    own = (b"host", b"content-length", b"transfer-encoding")
    headers = {
        name.decode("latin-1"): value.decode("latin-1").strip()
        for name, value in request.headers.items()
        if name not in own
    }
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": headers,
        "body": request.body,
    }


@settings(deadline=None, max_examples=40)
@given(written=st.lists(written_requests(), min_size=1, max_size=4), cuts=CUTS)
def test_any_chunking_gives_the_same_requests(loop, written, cuts):
    data = b"".join(raw for raw, _ in written)

    found = talk(loop, data, cuts)

    assert [said(request) for request in found.requests] == [says for _, says in written]
    assert found.wire.written.count(b"HTTP/1.1 200 OK\r\n") == len(written)


@settings(deadline=None, max_examples=10)
@given(written=written_requests())
def test_a_request_that_comes_byte_by_byte_is_the_same(loop, written):
    raw, says = written

    found = talk(loop, raw, list(range(len(raw))))

    assert [said(request) for request in found.requests] == [says]


AGAIN = b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-Team: b\r\n\r\n"


@settings(deadline=None, max_examples=60)
@given(
    bodies=st.lists(st.binary(max_size=30), min_size=2, max_size=5),
    damage=st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(
        [b"\r\n", b"\n", b"0", b"9", b" ", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"x"]
    )),
)  # fmt: skip
def test_a_head_that_comes_again_says_the_same_as_one_that_is_parsed(loop, bodies, damage):
    messages = [AGAIN % (b"a", len(body)) + body for body in bodies]
    if damage is not None:
        at, removed, inserted = damage
        last = messages[-1]
        at %= len(last) + 1
        messages[-1] = last[:at] + inserted + last[at + removed :]
    data = b"".join(messages)
    ends = [sum(map(len, messages[:i])) for i in range(1, len(messages))]

    whole, parsed = talk(loop, data, ends), talk(loop, data, list(range(len(data))))

    found = [(said(request), request.headers.get(b"content-length")) for request in whole.requests]
    expected = [(said(request), request.headers.get(b"content-length")) for request in parsed.requests]
    assert found == expected[: len(found)]
    # What follows upon a whole request in the same piece, and is none, cuts its answer too.
    assert len(found) >= len(bodies) - 1


@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=400), cuts=CUTS)
def test_random_bytes_end_in_a_refusal_or_in_waiting(loop, data, cuts):
    found = talk(loop, data, cuts)

    assert found.requests == []
    assert [answer.status for answer in answers(found.wire.written)] in ([], [400], [431])


FRAGMENTS = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"0\r\n\r\n", b"\xff", b"x" * 2500),
        *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
        *(b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n"),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
)


@settings(deadline=None, max_examples=60)
@given(
    written=st.lists(written_requests(), min_size=1, max_size=3),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 20), FRAGMENTS), min_size=1, max_size=4),
    cuts=CUTS,
)
def test_damaged_requests_never_get_more_answers_than_there_are_requests(loop, written, damage, cuts):
    data = b"".join(raw for raw, _ in written)
    for at, removed, inserted in damage:
        at %= len(data) + 1
        data = data[:at] + inserted + data[at + removed :]

    found = talk(loop, data, cuts)

    final = [answer for answer in answers(found.wire.written) if answer.status >= 200]
    refused = [answer for answer in final if answer.status != 200]
    assert len(final) - len(refused) <= len(found.requests)
    assert len(refused) <= 1
    assert not refused or final[-1].status in (400, 413, 431)


@settings(deadline=None, max_examples=25)
@given(
    written=st.lists(written_requests(), min_size=1, max_size=3),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 20), FRAGMENTS), max_size=3),
    cuts=CUTS,
)
@example(  # the limit on heads holds for one that begins in the piece in which another request ended
    written=[(b"GET /0 HTTP/1.1\r\nHost: a\r\n\r\n", {})] * 3, damage=[(66, 0, b"x" * 2001)], cuts=[58]
)
def test_how_bytes_are_cut_never_changes_who_is_heard(loop, written, damage, cuts):
    """Damaged or not: a shape that is refused in one piece is refused in many."""
    data = b"".join(raw for raw, _ in written)
    for at, removed, inserted in damage:
        at %= len(data) + 1
        data = data[:at] + inserted + data[at + removed :]

    whole, cut = talk(loop, data, []), talk(loop, data, cuts)

    # In one piece, a fault cuts the answers before it: so fewer may be heard, never others.
    heard = [said(request) for request in cut.requests]
    assert [said(request) for request in whole.requests] == heard[: len(whole.requests)]
