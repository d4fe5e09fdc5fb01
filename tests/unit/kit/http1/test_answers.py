"""Answers are the same however the network cuts them, and no bytes bring the client down."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.http1.client import Client, Exchange, HttpFailure
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.sweep import Sweeper


class Wire:
    """A transport whose other end hangs up when it is told to."""

    is_gone = False

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.is_gone = True

    close = abort


class Found:
    """What became of an answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.failure = ""
        self.is_kept = False


async def received(pieces: list[bytes], *, hangs_up: bool, whole: bool) -> Found:
    client = Client(Address(host="192.0.2.1"), Sweeper())
    exchange, wire, found = Exchange(client), Wire(), Found()
    exchange.connection_made(wire)
    asked = asyncio.ensure_future(exchange.send(b"", Timeouts(), total_s=60.0, whole=whole))
    await asyncio.sleep(0)
    read = asyncio.ensure_future(_read(exchange, asked, found))
    for piece in pieces:
        if not wire.is_gone:
            exchange.data_received(piece)
        await asyncio.sleep(0)
    if hangs_up or wire.is_gone:
        exchange.connection_lost(None)
    for _ in range(20):
        await asyncio.sleep(0)
    if not read.done():
        found.failure = "waits"
        asked.cancel()
        read.cancel()
    await asyncio.gather(read, return_exceptions=True)
    exchange.release()
    found.is_kept = exchange in client._idle
    return found


async def _read(exchange: Exchange, asked: asyncio.Future[None], found: Found) -> None:
    try:
        await asked
        found.status, found.headers = exchange.status, dict(exchange.headers)
        while data := await exchange.read():
            found.body += data
    except HttpFailure as exc:
        found.failure = exc.stage


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]  # a network delivers no empty pieces


CUTS = st.lists(st.integers(0, 10_000), max_size=12)
NAMES = st.text("abcdefg-", min_size=1, max_size=8).map(lambda name: "x-" + name)
INSERTED = st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
VALUES = st.text("abc XYZ,;=/", max_size=12).map(str.strip)


@st.composite
def written_answers(draw: st.DrawFn) -> tuple[bytes, dict[str, str], bytes, bool]:
    """An answer as bytes, its headers and body, and whether its end is the connection's."""
    headers = draw(st.dictionaries(NAMES, VALUES, max_size=4))
    pieces = draw(st.lists(st.binary(min_size=1, max_size=60), max_size=4))
    body = b"".join(pieces)
    framing = draw(st.sampled_from(["length", "chunked", "none"]))
    lines = [f"{name}: {value}" for name, value in headers.items()]
    sent = body
    if framing == "length":
        lines.append(f"content-length: {len(body)}")
    elif framing == "chunked":
        lines.append("transfer-encoding: chunked")
        sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    early = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2))
    head = "HTTP/1.1 200 OK\r\n" + "".join(line + "\r\n" for line in lines) + "\r\n"
    return early + head.encode() + sent, headers, body, framing == "none"


@settings(deadline=None, max_examples=60)
@given(written=written_answers(), cuts=CUTS, whole=st.booleans())
def test_any_chunking_gives_the_same_answer(loop, written, cuts, whole):
    data, headers, body, ends_with_connection = written

    found = loop.run_until_complete(
        received(cut(data, cuts), hangs_up=ends_with_connection, whole=whole and not ends_with_connection)
    )

    assert (found.status, found.body, found.failure) == (200, body, "")
    assert {
        name.decode(): value.decode().strip()
        for name, value in found.headers.items()
        if name.startswith(b"x-")
    } == headers
    assert found.is_kept != ends_with_connection


@settings(deadline=None, max_examples=60)
@given(written=written_answers(), at=st.integers(0, 10_000), whole=st.booleans())
def test_an_answer_that_is_cut_never_looks_whole(loop, written, at, whole):
    data, _, body, ends_with_connection = written
    cut_data = data[: at % len(data)]

    found = loop.run_until_complete(received([cut_data], hangs_up=True, whole=whole))

    if not ends_with_connection:
        assert found.failure in ("head", "body")
    assert body.startswith(found.body)
    assert not found.is_kept


@settings(deadline=None, max_examples=80)
@given(
    written=written_answers(),
    damage=st.lists(
        st.tuples(
            st.integers(0, 10_000),
            st.integers(0, 20),
            st.binary(max_size=8)
            | st.sampled_from([b"\r\n", b"\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]),
        ),
        max_size=3,
    ),
    cuts=CUTS,
)
def test_damaged_answers_end_in_a_typed_failure_or_not_at_all(loop, written, damage, cuts):
    data = written[0]
    for at, removed, inserted in damage:
        at %= len(data) + 1
        data = data[:at] + inserted + data[at + removed :]

    found = loop.run_until_complete(received(cut(data, cuts), hangs_up=True, whole=False))

    assert found.failure in ("", "head", "body", "response")
    assert not found.is_kept


@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=300), cuts=CUTS, whole=st.booleans())
def test_random_bytes_are_no_answer(loop, data, cuts, whole):
    found = loop.run_until_complete(received(cut(data, cuts), hangs_up=True, whole=whole))

    assert found.failure in ("head", "body", "response")
    assert not found.is_kept


SIZES = st.sampled_from(["%x", "%X", "0%x", "%x;name=value", "%x ", " %x", "0x%x", "+%x", "1_%x", "-%x"])


@settings(deadline=None, max_examples=150)
@given(
    events=st.lists(st.tuples(SIZES, st.binary(min_size=1, max_size=300)), min_size=1, max_size=5),
    lies=st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=2),
    tail=st.sampled_from([b"0\r\n\r\n", b"0\r\nx-a: b\r\n\r\n", b"0\r\n\r\n5\r\nhello\r\n", b""]),
)
def test_chunks_that_come_one_by_one_are_read_as_the_parser_reads_them(loop, events, lies, tail):
    wrong = dict(lies)
    pieces = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"]
    for i, (size, data) in enumerate(events):
        pieces.append((size % max(0, len(data) + wrong.get(i, 0))).encode() + b"\r\n" + data + b"\r\n")
    pieces.append(tail)

    def read(parts: list[bytes]) -> Found:
        return loop.run_until_complete(received(parts, hangs_up=True, whole=False))

    found = read([piece for piece in pieces if piece])
    slowly = read([bytes([one]) for one in b"".join(pieces)])
    assert (found.failure, found.is_kept) == (slowly.failure, slowly.is_kept)
    if not found.failure:
        assert found.body == slowly.body
