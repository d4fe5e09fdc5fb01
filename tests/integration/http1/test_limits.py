"""Nothing that a client sends, or does not send, takes more than its bound."""

import asyncio
import resource
import socket
import time
from statistics import quantiles

import psutil
import pytest

from http1_rig import TEXT, Door, Raw, answers, connected, echo, exchange, serving
from pilothouse.kit.http1.message import Limits, Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.kit.http1.server import Connection

KIB, MIB = 1024, 1024 * 1024
HEAD = b"GET /first HTTP/1.1\r\nHost: a\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
HURRIED = Limits(header_timeout_s=0.3, body_timeout_s=0.3, keepalive_timeout_s=0.3, write_timeout_s=0.5)


def connections(door: Door) -> list[Connection]:
    return [member for member in door.server.sweeper.members if isinstance(member, Connection)]


async def until(is_so, *, timeout_s: float = 3.0) -> None:
    ends = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < ends, "it did not come to that in time"
        await asyncio.sleep(0.01)


# sizes


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"X: " + b"x" * 40 * KIB,
        HEAD + b"X: " + b"x" * 40 * KIB + b"\r\n\r\n",
        b"GET /" + b"x" * 40 * KIB + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD + b"".join(b"X%d: y\r\n" % n for n in range(101)) + b"\r\n",
        HEAD + b"X: 12345678\r\n" * 4 * KIB + b"\r\n",
        CHUNKED + b"0\r\nX: " + b"x" * 40 * KIB,
        CHUNKED + b"3;" + b"x" * 300 * KIB,
    ],
    ids=["header", "header in one piece", "target", "headers", "header again", "trailer", "chunk extension"],
)
async def test_a_head_over_its_bound_is_refused_as_soon_as_it_is(data: bytes):
    async with serving() as door:
        said, closed = await exchange(door.port, data, silence_s=2.0)

    assert closed
    assert [answer.status for answer in said] == [431]
    assert door.requests == []


async def test_a_header_of_a_megabyte_is_told_so_and_not_kept():
    async with serving() as door, connected(door.port) as raw:
        for _ in range(128):
            try:
                await raw.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 8 * KIB)
            except ConnectionError:
                break
        got = await raw.read_until_closed()

    assert [answer.status for answer in answers(got)] == [431]


async def test_a_body_of_exactly_the_bound_passes():
    body = b"x" * 4 * MIB

    async with serving() as door, connected(door.port) as raw:
        await raw.send(b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        answer = await raw.answer()

    assert answer.body == b"POST /first " + body


async def test_a_body_over_the_bound_is_refused_before_any_of_it_is_read():
    async with serving() as door:
        head = b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (4 * MIB + 1)
        said, closed = await exchange(door.port, head, silence_s=2.0)

    assert closed
    assert [answer.status for answer in said] == [413]


async def test_who_sends_a_large_body_all_the_same_can_read_the_refusal():
    """Without a pause for him, unread bytes would turn into a reset that swallows the answer."""
    async with serving() as door:
        head = b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (6 * MIB)
        said, closed = await exchange(door.port, head + b"x" * 6 * MIB, silence_s=3.0)

    assert closed
    assert [answer.status for answer in said] == [413]


async def test_who_goes_on_sending_after_a_refusal_is_cut():
    async with serving() as door, connected(door.port) as raw:
        began = time.monotonic()
        await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        sending = asyncio.create_task(_drip(raw, b"x" * 500))
        await until(lambda: connections(door) == [], timeout_s=5)
        sending.cancel()

        assert 1.5 < time.monotonic() - began < 4


async def test_a_body_that_grows_over_the_bound_in_chunks_is_refused():
    async with serving() as door, connected(door.port) as raw:
        await raw.send(CHUNKED)
        for _ in range(70):
            try:
                await raw.send(b"%x\r\n%s\r\n" % (64 * KIB, b"x" * 64 * KIB))
            except ConnectionError:
                break
        got = await raw.read_until_closed()

    assert [answer.status for answer in answers(got)] == [413]
    assert door.requests == []


# waits


async def _drip(raw: Raw, data: bytes) -> None:
    for at in range(len(data)):
        try:
            await raw.send(data[at : at + 1])
        except ConnectionError:
            return
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("at_once", "slowly", "status"),
    [
        (b"", HEAD * 20, [408]),
        (CHUNKED, b"1\r\nx\r\n" * 100, [408]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n", b"x" * 500, [408]),
        (b"", b"\r\n" * 200, []),
        (b"", b"", []),
        (NEXT, b"\r\n" * 200, [200]),
    ],
    ids=["head", "chunks", "body", "empty lines", "nothing", "nothing more"],
)
async def test_a_client_that_takes_its_time_is_closed(at_once: bytes, slowly: bytes, status: list[int]):
    async with serving(limits=HURRIED) as door, connected(door.port) as raw:
        if at_once:
            await raw.send(at_once)
        dripping = asyncio.create_task(_drip(raw, slowly))
        began = time.monotonic()
        got = await raw.read_until_closed(timeout_s=3.0)
        took_s = time.monotonic() - began
        dripping.cancel()

    assert took_s < 1.5
    assert [answer.status for answer in answers(got)] == status


async def test_a_handler_may_take_longer_than_a_client():
    async def slow(request: Request, responder: Responder) -> None:
        await asyncio.sleep(1.0)
        await echo(request, responder)

    async with serving(slow, limits=HURRIED) as door, connected(door.port) as raw:
        await raw.send(NEXT)

        assert (await raw.answer()).status == 200


# readers that do not read


async def _streamed(responder: Responder, size: int, *, piece: bytes = b"x" * 64 * KIB) -> int:
    """Writes `size` bytes as fast as they are taken; returns how many were."""
    written = 0
    responder.start(200, TEXT)
    while written < size and not responder.is_gone:
        responder.write(piece)
        written += len(piece)
        if responder.is_paused:
            await responder.drain()
    responder.end()
    return written


async def test_a_reader_that_never_reads_holds_the_producer_and_is_cut():
    written: list[int] = []
    cancelled = asyncio.Event()

    async def stream(request: Request, responder: Responder) -> None:
        responder.start(200, TEXT)
        try:
            while True:
                responder.write(b"x" * 64 * KIB)
                written.append(64 * KIB)
                await responder.drain()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    limits = Limits(write_timeout_s=0.5)
    async with serving(stream, limits=limits) as door, connected(door.port) as raw:
        raw.writer.transport.pause_reading()
        await raw.send(NEXT)
        await asyncio.sleep(0.3)
        held = sum(written)
        await asyncio.wait_for(cancelled.wait(), 3.0)

        assert sum(written) == held, "the producer went on while nobody read"
        assert held < 16 * MIB, "more was produced than the system's own buffers take"
        assert connections(door) == []


async def test_a_stream_of_256_mb_takes_no_memory():
    size = 256 * MIB

    async def stream(request: Request, responder: Responder) -> None:
        await _streamed(responder, size)

    async with serving(stream) as door:
        with socket.create_connection(("127.0.0.1", door.port)) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, b"GET / HTTP/1.0\r\n\r\n")
            await asyncio.sleep(0.2)
            before = psutil.Process().memory_info().rss
            got, most, buffer = 0, 0, bytearray(256 * KIB)
            while count := await loop.sock_recv_into(client, buffer):
                got += count
                most = max(most, psutil.Process().memory_info().rss if got % 7 == 0 else 0)

    assert got > size
    assert most - before < 16 * MIB


async def test_answers_that_nobody_reads_do_not_pile_up():
    """Many small requests whose answers are large: the next begins when the last was taken."""

    async def large(request: Request, responder: Responder) -> None:
        responder.send(200, TEXT, b"x" * 512 * KIB)

    limits = Limits(write_timeout_s=0.5)
    async with serving(large, limits=limits) as door, connected(door.port) as raw:
        raw.writer.transport.pause_reading()
        for _ in range(300):
            if raw.writer.transport.is_closing():
                break  # on a slow machine the time to read is over before all are sent
            raw.writer.write(NEXT)
            await asyncio.sleep(0.001)
        answered = len(door.requests)
        await until(lambda: connections(door) == [])

    assert answered < 40


async def test_pipelined_requests_behind_a_slow_reader_are_answered_when_he_reads():
    async def large(request: Request, responder: Responder) -> None:
        responder.send(200, TEXT, b"x" * 8 * MIB)

    async with serving(large) as door, connected(door.port) as raw:
        await raw.send(NEXT * 4)
        await asyncio.sleep(0.1)
        for _ in range(4):
            assert len((await raw.answer()).body) == 8 * MIB

    assert len(door.requests) == 4


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "kept alive"])
async def test_a_few_unread_bytes_do_not_hold_a_connection_for_ever(closes: bool):
    """Too few for backpressure, so that no pause of the transport tells of them."""

    async def fill(request: Request, responder: Responder) -> None:
        transport = responder._connection._transport
        responder.start(200, TEXT)
        while not transport.get_write_buffer_size():
            responder.write(b"x" * 4 * KIB)
        responder.end()

    async with serving(fill, limits=HURRIED) as door:
        with socket.create_connection(("127.0.0.1", door.port)) as client:
            client.sendall(HEAD + (b"Connection: close\r\n\r\n" if closes else b"\r\n"))
            await until(lambda: len(door.requests) == 1)

            await until(lambda: connections(door) == [])


# many


async def test_pipelined_requests_are_answered_in_their_order():
    async def uneven(request: Request, responder: Responder) -> None:
        await asyncio.sleep(0.02 if request.path.endswith("0") else 0)
        await echo(request, responder)

    wanted = [f"/{n}".encode() for n in range(20)]
    async with serving(uneven) as door, connected(door.port) as raw:
        for path in wanted:
            await raw.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        said = [(await raw.answer()).body for _ in wanted]

    assert said == [b"GET %s " % path for path in wanted]


async def test_pipelined_requests_that_wait_are_bounded():
    let_go = asyncio.Event()

    async def held(request: Request, responder: Responder) -> None:
        await let_go.wait()
        await echo(request, responder)

    async with serving(held) as door, connected(door.port) as raw:
        for _ in range(30):
            await raw.send(NEXT)
            await asyncio.sleep(0.002)
        (connection,) = connections(door)

        assert len(door.requests) == 1
        assert len(connection._pending) == door.server.limits.max_pipelined
        let_go.set()
        for _ in range(30):
            assert (await raw.answer()).status == 200


async def test_a_burst_of_pipelined_requests_is_cut_and_not_kept():
    async def held(request: Request, responder: Responder) -> None:
        await asyncio.sleep(0.2)
        await echo(request, responder)

    async with serving(held) as door:
        said, closed = await exchange(door.port, NEXT * 1000, silence_s=2.0)

    assert closed
    assert len(said) <= 1
    assert len(door.requests) == 1


async def test_large_bodies_do_not_wait_in_memory_behind_a_slow_answer():
    let_go = asyncio.Event()

    async def held(request: Request, responder: Responder) -> None:
        await let_go.wait()
        await echo(request, responder)

    large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (2 * MIB, b"x" * 2 * MIB)
    async with serving(held) as door, connected(door.port) as raw:
        sending = asyncio.create_task(raw.send(large * 12))
        await asyncio.sleep(0.3)
        (connection,) = connections(door)
        waiting = sum(len(request.body) for request in connection._pending)
        let_go.set()
        for _ in range(12):
            assert len((await raw.answer()).body) > 2 * MIB
        await sending

    assert waiting <= 4 * MIB


async def test_bodies_that_arrive_slowly_share_one_bound():
    """A thousand clients that each send most of 4 MiB, and stop, must not take 4 GiB."""
    limits = Limits(max_arriving_bytes=3 * MIB, body_timeout_s=0.5)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * MIB)
    async with serving(limits=limits) as door:
        async with connected(door.port) as first, connected(door.port) as second:
            await first.send(head + b"x" * MIB)
            await second.send(head + b"x" * MIB)
            await until(lambda: door.server.arriving.taken == 2 * MIB)
            said, closed = await exchange(door.port, head + b"x" * (MIB + 100_000), silence_s=2.0)
            small, _ = await exchange(door.port, NEXT)
            await until(lambda: door.server.arriving.taken == 2 * MIB)
            await first.send(b"x" * MIB)
            finished = await first.answer()
            await second.read_until_closed()

        assert closed
        assert [answer.status for answer in said] == [503]
        assert small[0].status == 200, "who sends little is not held up by it"
        assert len(finished.body) > 2 * MIB
        assert door.server.arriving.taken == 0


async def test_connections_over_the_bound_are_closed_at_once():
    async with serving(limits=Limits(max_connections=4)) as door:
        async with connected(door.port) as first, connected(door.port), connected(door.port):
            await first.send(NEXT)
            await first.answer()
            async with connected(door.port) as over:
                assert await over.read_until_closed(timeout_s=1.0) == b""
        await until(lambda: connections(door) == [])
        async with connected(door.port) as later:
            await later.send(NEXT)

            assert (await later.answer()).status == 200


async def test_5000_idle_connections_cost_little_and_slow_nobody(record_property):
    count = 5000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * count + 500:
        pytest.skip(f"this process may open {hard} files, and this takes {2 * count}")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients: list[socket.socket] = []
    try:
        async with serving() as door:
            before = psutil.Process().memory_info().rss
            for n in range(count):
                client = socket.socket()
                client.setblocking(False)
                clients.append(client)
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", door.port))
                if n % 2:
                    client.send(HEAD)
            await until(lambda: len(connections(door)) == count)
            grown_kib = (psutil.Process().memory_info().rss - before) / count / KIB

            latencies_ms = await _latencies_ms(door, 300)
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    p50, p99 = quantiles(latencies_ms, n=100)[49], quantiles(latencies_ms, n=100)[98]
    note = f"{count} idle connections take {grown_kib:.1f} KiB each; p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    record_property("note", note)
    assert grown_kib < 20
    assert p50 < 10
    assert p99 < 100


async def _latencies_ms(door: Door, count: int) -> list[float]:
    taken: list[float] = []
    async with connected(door.port) as raw:
        for _ in range(count):
            began = time.perf_counter()
            await raw.send(NEXT)
            await raw.answer()
            taken.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.003)
    return taken
