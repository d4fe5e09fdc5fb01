"""What is not the hot path goes to the controller and back, as it came, or is told at once that it cannot."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway_rig import DEVELOPER, House, house, key
from http1_rig import answers
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, whole

Reply = Callable[[Upstream, bytes], Awaitable[None]]
KIB, MIB = 1024, 1024 * 1024


class Controller:
    """A stand-in on a Unix socket: what it was asked, and by how many connections."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.connections = 0
        self.heard_hang_up = asyncio.Event()


@asynccontextmanager
async def controller(path: Path, reply: Reply) -> AsyncIterator[Controller]:
    stand_in = Controller()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stand_in.connections += 1
        tasks.add(asyncio.current_task())
        talk = Upstream(reader, writer)
        try:
            while True:
                asked = await talk.request()
                stand_in.asked.append(asked)
                await reply(talk, asked)
        except (asyncio.IncompleteReadError, ConnectionError):
            stand_in.heard_hang_up.set()
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield stand_in
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        path.unlink(missing_ok=True)


@asynccontextmanager
async def both(tmp_path: Path, reply: Reply) -> AsyncIterator[tuple[House, Controller]]:
    path = tmp_path / "control.sock"
    async with controller(path, reply) as stand_in, house(controller=str(path)) as h:
        yield h, stand_in


def says(*pieces: bytes) -> Reply:
    """Answers with these bytes; HEAD with their head alone, as it must."""

    async def reply(talk: Upstream, asked: bytes) -> None:
        if asked.startswith(b"HEAD "):
            await talk.say(b"".join(pieces).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            return
        await talk.say(*pieces)

    return reply


async def test_a_request_goes_there_as_it_came_and_its_answer_comes_back(tmp_path):
    made = whole(b'{"id":"k1"}', status=b"201 Created", headers=b"x-request-id: req_theirs\r\netag: 7\r\n")

    async with both(tmp_path, says(made)) as (h, c):
        answer = await h.ask("/admin/v1/keys?team=a&x=%20", b'{"team":"a"}', headers=b"If-Match: 6\r\n")

    head, _, body = c.asked[0].partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /admin/v1/keys?team=a&x=%20 http/1.1"
    assert f"authorization: bearer {key(DEVELOPER)}".lower() in lines
    assert "if-match: 6" in lines
    assert "host: a" in lines
    assert "x-forwarded-for: 127.0.0.1" in lines
    assert body == b'{"team":"a"}'
    assert (answer.status, answer.body) == (201, b'{"id":"k1"}')
    assert answer.headers["x-request-id"] == "req_theirs"
    assert answer.headers["etag"] == "7"
    assert int(answer.headers["x-pilothouse-overhead-us"]) >= 0


@pytest.mark.parametrize("path", ["/metrics", "/admin/openapi.json", "/admin/v1/status"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
async def test_all_that_is_the_controllers_goes_there(tmp_path, path, method):
    async with both(tmp_path, says(whole(b"ok"))) as (h, c):
        answer = await h.ask(path, method=method, as_key=None)

    assert answer.body == b"ok"
    assert c.asked[0].startswith(f"{method} {path} ".encode())


async def test_nobody_can_say_for_whom_he_speaks(tmp_path):
    forged = b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nConnection: keep-alive, X-A\r\n"

    async with both(tmp_path, says(whole(b"ok"))) as (h, c):
        await h.ask("/admin/v1/keys", headers=forged)

    head = c.asked[0].partition(b"\r\n\r\n")[0].lower()
    assert head.count(b"x-forwarded-for") == 1
    assert b"10.0.0" not in head
    assert head.count(b"content-length") == 1
    assert b"transfer-encoding" not in head


async def test_a_chunked_request_goes_there_with_its_length(tmp_path):
    async with both(tmp_path, says(whole(b"ok"))) as (h, c):
        request = (
            b"PUT /admin/v1/spec HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        async with h.asking() as raw:
            await raw.answer()
            await raw.send(request)
            assert (await raw.answer()).body == b"ok"

    assert b"content-length: 5\r\n" in c.asked[0]
    assert c.asked[0].endswith(b"\r\n\r\nabcde")


@pytest.mark.parametrize("path", ["/metrics", "/admin/v1/keys", "/v1/models", "/livez"])
@pytest.mark.parametrize(
    "reply",
    [says(whole(b"12345")), says(CHUNKED_HEAD + chunked(b"12345"))],
    ids=["length", "chunked"],
)
async def test_head_gets_no_body_and_the_connection_goes_on(tmp_path, path, reply):
    async with both(tmp_path, reply) as (h, _), h.asking() as raw:
        await raw.answer()
        await raw.send(h.request(path, method="HEAD"))
        await raw.send(h.request(path, method="HEAD"))
        got, closed = await raw.read_until_silent()

    said = answers(got, to_head=True)
    assert [answer.status for answer in said] == [200, 200]
    assert not closed


async def test_a_stream_comes_through_piece_by_piece(tmp_path):
    go_on = asyncio.Event()

    async def reply(talk: Upstream, asked: bytes) -> None:
        await talk.say(CHUNKED_HEAD + chunked(b"first", end=False))
        await go_on.wait()
        await talk.say(chunked(b"last"))

    async with both(tmp_path, reply) as (h, _), h.asking() as raw:
        await raw.answer()
        await raw.send(h.request("/admin/v1/logs", method="GET"))
        first = await asyncio.wait_for(raw.reader.readuntil(b"first"), 1.0)
        go_on.set()
        rest = await asyncio.wait_for(raw.reader.readuntil(b"0\r\n\r\n"), 1.0)

    assert answers(first + rest)[0].body == b"firstlast"


async def test_a_large_answer_is_passed_on_and_not_gathered(tmp_path):
    sent = 0
    piece = b"x" * 256 * KIB

    async def reply(talk: Upstream, asked: bytes) -> None:
        nonlocal sent
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (48 * MIB))
        for _ in range(192):
            await talk.say(piece)
            sent += len(piece)

    async with both(tmp_path, reply) as (h, _), h.asking() as raw:
        await raw.answer()
        raw.writer.transport.pause_reading()
        await raw.send(h.request("/admin/v1/backup", method="GET"))
        await asyncio.sleep(0.4)
        held = sent
        raw.writer.transport.resume_reading()
        answer = await raw.answer(timeout_s=20)

    assert len(answer.body) == 48 * MIB
    assert held < 24 * MIB


async def test_a_hang_up_reaches_the_controller(tmp_path):
    async def reply(talk: Upstream, asked: bytes) -> None:
        await talk.say(CHUNKED_HEAD + chunked(b"first", end=False))

    async with both(tmp_path, reply) as (h, c), h.asking() as raw:
        await raw.answer()
        await raw.send(h.request("/admin/v1/logs", method="GET"))
        await asyncio.wait_for(raw.reader.readuntil(b"first"), 1.0)
        raw.close()

        await asyncio.wait_for(c.heard_hang_up.wait(), 1.0)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_an_answer_without_a_body_stays_one(tmp_path, status):
    bare = b"HTTP/1.1 %s\r\netag: 7\r\n\r\n" % status

    async with both(tmp_path, says(bare)) as (h, _), h.asking() as raw:
        await raw.answer()
        await raw.send(h.request("/admin/v1/spec", method="GET"))
        await raw.send(h.request("/admin/v1/spec", method="GET"))
        got, closed = await raw.read_until_silent()

    said = answers(got, to_head=True)
    assert [answer.status for answer in said] == [int(status[:3])] * 2
    assert not {"content-length", "transfer-encoding"} & said[0].headers.keys()
    assert not closed


# a controller that is not well


async def test_a_dead_controller_is_503_and_models_go_on():
    async with house(controller="/nowhere/control.sock") as h:
        dead = await h.ask("/admin/v1/keys", method="GET")
        alive = await h.ask()

    assert dead.status == 503
    assert json.loads(dead.body)["error"]["code"] == "store_unavailable"
    assert dead.headers["retry-after"]
    assert alive.status == 200


async def test_a_controller_that_dies_before_it_answers_is_503(tmp_path):
    async def reply(talk: Upstream, asked: bytes) -> None:
        talk.close()
        raise ConnectionError

    async with both(tmp_path, reply) as (h, _):
        answer = await h.ask("/admin/v1/keys", method="GET")

    assert answer.status == 503


@pytest.mark.parametrize("is_long", [True, False])
async def test_an_answer_that_is_cut_never_looks_whole(tmp_path, is_long):
    size = 4 * MIB if is_long else 100

    async def reply(talk: Upstream, asked: bytes) -> None:
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * (size // 2))
        talk.close()
        raise ConnectionError

    async with both(tmp_path, reply) as (h, _), h.asking() as raw:
        await raw.answer()
        await raw.send(h.request("/admin/v1/keys", method="GET"))
        got, closed = await raw.read_until_silent(silence_s=1.0)

    said = answers(got)
    if is_long:
        assert said[0].is_cut
        assert closed
    else:
        assert [answer.status for answer in said] == [503]


async def test_what_changes_something_is_never_sent_twice(tmp_path):
    """The controller took it and died before it answered: whether it is done, the caller must look."""
    calls = 0

    async def reply(talk: Upstream, asked: bytes) -> None:
        nonlocal calls
        calls += 1
        if asked.startswith(b"GET"):
            await talk.say(whole(b"ok"))
            return
        talk.close()
        raise ConnectionError

    async with both(tmp_path, reply) as (h, c):
        await h.ask("/admin/v1/keys", method="GET")
        answer = await h.ask("/admin/v1/keys", b"{}")

        assert answer.status == 503
        assert sum(asked.startswith(b"POST") for asked in c.asked) == 1


async def test_a_controller_that_was_restarted_is_found_again(tmp_path):
    path = tmp_path / "control.sock"

    async with house(controller=str(path)) as h:
        for expected in (b"one", b"two"):
            async with controller(path, says(whole(expected))):
                assert (await h.ask("/admin/v1/keys", method="GET")).body == expected
            assert (await h.ask("/admin/v1/keys", method="GET")).status == 503
