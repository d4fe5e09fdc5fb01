"""The life of a connection: what it answers, when it ends, and whom it takes along."""

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from http1_rig import TEXT, answers, connected, echo, exchange, serving
from pilothouse.kit.http1.message import Limits, Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.kit.http1.server import server_tls

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


def get(path: bytes, headers: bytes = b"", *, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"%s %s HTTP/%s\r\nHost: a\r\n%s\r\n" % (method, path, version, headers)


class Held:
    """A handler that waits to be let go, and tells how it ended."""

    def __init__(self) -> None:
        self.began, self.let_go, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.tidied = False

    async def __call__(self, request: Request, responder: Responder) -> None:
        self.began.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await asyncio.sleep(0)  # as a handler does that closes what it holds
            self.tidied = True
            raise
        await echo(request, responder)


async def stream_three(request: Request, responder: Responder) -> None:
    responder.start(200, TEXT)
    for word in (b"one ", b"two ", b"three"):
        responder.write(word)
        await responder.drain()
    responder.end()


# answers


async def test_a_connection_is_kept_for_the_next_request():
    async with serving() as door, connected(door.port) as raw:
        for n in range(3):
            await raw.send(get(b"/%d" % n))

            assert (await raw.answer()).body == b"GET /%d " % n


@pytest.mark.parametrize(
    "data",
    [
        get(b"/", b"Connection: close\r\n"),
        get(b"/", version=b"1.0"),
        get(b"/", b"Connection: keep-alive\r\n", version=b"1.0"),
    ],
    ids=["asked to", "HTTP/1.0", "HTTP/1.0 that would keep it"],
)
async def test_a_connection_is_closed_after_its_answer_when_it_should_be(data: bytes):
    async with serving() as door:
        said, closed = await exchange(door.port, data)

    assert closed
    assert [answer.headers["connection"] for answer in said] == ["close"]


async def test_a_stream_is_chunked_and_leaves_the_connection_open():
    async with serving(stream_three) as door:
        said, closed = await exchange(door.port, NEXT + NEXT)

    assert [answer.body for answer in said] == [b"one two three"] * 2
    assert not closed


async def test_a_stream_to_http_1_0_ends_with_the_connection():
    async with serving(stream_three) as door:
        said, closed = await exchange(door.port, get(b"/", version=b"1.0"))

    assert closed
    assert said[0].body == b"one two three"
    assert "transfer-encoding" not in said[0].headers


@pytest.mark.parametrize("handler", [echo, stream_three])
async def test_head_gets_the_head_of_get_and_no_body(handler):
    """A body would be read as the answer to the next request."""
    async with serving(handler) as door, connected(door.port) as raw:
        await raw.send(get(b"/", method=b"HEAD") * 2)
        got, closed = await raw.read_until_silent()

    said = answers(got, to_head=True)
    assert [answer.status for answer in said] == [200, 200]
    assert all({"content-length", "transfer-encoding"} & answer.headers.keys() for answer in said)
    assert not closed


async def test_the_first_piece_of_a_stream_goes_out_at_once():
    held = asyncio.Event()

    async def slow(request: Request, responder: Responder) -> None:
        responder.start(200, TEXT)
        responder.write(b"first")
        await held.wait()
        responder.end(b"last")

    async with serving(slow) as door, connected(door.port) as raw:
        await raw.send(NEXT)
        got = await asyncio.wait_for(raw.reader.readuntil(b"first"), 1.0)
        held.set()
        rest = await asyncio.wait_for(raw.reader.readuntil(b"0\r\n\r\n"), 1.0)

    assert answers(got + rest)[0].body == b"firstlast"


async def test_a_silent_stream_gets_a_sign_of_life():
    async def slow(request: Request, responder: Responder) -> None:
        responder.start(200, TEXT)
        responder.keepalive = b": still here\n\n"
        responder.write(b"data: 1\n\n")
        await asyncio.sleep(1.2)
        responder.end(b"data: 2\n\n")

    async with serving(slow, stream_keepalive_s=0.2) as door, connected(door.port) as raw:
        await raw.send(NEXT)
        answer = await raw.answer()

    assert answer.body.startswith(b"data: 1\n\n: still here\n\n")
    assert answer.body.endswith(b": still here\n\ndata: 2\n\n")


async def test_who_expects_100_continue_is_told_to_go_on():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"

    async with serving() as door, connected(door.port) as raw:
        await raw.send(head)
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await raw.send(b"abc")

        assert (await raw.answer()).body == b"POST / abc"


async def test_http_1_0_is_never_told_to_go_on():
    head = b"POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"

    async with serving() as door:
        said, _ = await exchange(door.port, head + b"abc")

    assert [answer.status for answer in said] == [200]


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("cut", [0, 1, 30, 120, -1])
@pytest.mark.parametrize(
    ("data", "body"),
    [
        (get(b"/asked", UPGRADE), b"GET /asked "),
        (
            b"POST /asked HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" + UPGRADE + b"\r\nabc",
            b"POST /asked abc",
        ),
        (
            b"POST /asked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            + UPGRADE
            + b"\r\n3\r\nabc\r\n0\r\n\r\n",
            b"POST /asked abc",
        ),
    ],
    ids=["get", "length", "chunked"],
)
async def test_who_wishes_for_an_upgrade_gets_a_plain_answer(data: bytes, body: bytes, cut: int):
    """As Java's client does on its first request; without its body there would be nothing to answer."""
    async with serving() as door, connected(door.port) as raw:
        await raw.send(data[:cut])
        await asyncio.sleep(0.005)
        await raw.send(data[cut:])
        got = await raw.read_until_closed()

    (answer,) = answers(got)
    assert answer.body == body
    assert answer.headers["connection"] == "close"
    assert "upgrade" not in answer.headers


async def test_what_follows_a_wish_for_an_upgrade_is_never_a_request():
    async with serving() as door:
        said, closed = await exchange(door.port, get(b"/asked", UPGRADE) + NEXT)

    assert closed
    assert len(said) <= 1
    assert "/next" not in door.paths


# hang-ups and defects


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_hang_up_cancels_the_handler(how: str):
    held = Held()

    async with serving(held) as door, connected(door.port) as raw:
        await raw.send(NEXT + NEXT)
        await held.began.wait()
        getattr(raw, how)()

        await asyncio.wait_for(held.cancelled.wait(), 1.0)
        await asyncio.sleep(0.01)

    assert len(door.requests) == 1, "nobody is there to hear the second answer"


async def test_a_hang_up_during_a_stream_cancels_the_handler():
    cancelled = asyncio.Event()

    async def endless(request: Request, responder: Responder) -> None:
        responder.start(200, TEXT)
        try:
            while True:
                responder.write(b"x")
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(endless) as door, connected(door.port) as raw:
        await raw.send(NEXT)
        await raw.reader.read(100)
        raw.close()

        await asyncio.wait_for(cancelled.wait(), 1.0)


@pytest.mark.parametrize("begun", [False, True], ids=["before its answer", "within its answer"])
async def test_a_defect_cuts_its_own_connection_and_no_other(begun: bool):
    async def broken(request: Request, responder: Responder) -> None:
        if request.path == "/broken":
            if begun:
                responder.start(200, TEXT)
                responder.write(b"so far")
            raise RuntimeError("a defect")
        await echo(request, responder)

    async with serving(broken) as door, connected(door.port) as other:
        said, closed = await exchange(door.port, get(b"/broken"))
        await other.send(NEXT)
        after = await other.answer()
        defects = [str(defect) for defect in door.defects]
        door.defects.clear()

    assert closed
    assert said == [] or said[0].is_cut
    assert after.status == 200
    assert defects == ["a defect"]


async def test_an_answer_that_is_aborted_does_not_look_whole():
    async def aborting(request: Request, responder: Responder) -> None:
        responder.start(200, TEXT)
        responder.write(b"half")
        await asyncio.sleep(0.01)
        responder.abort()

    async with serving(aborting) as door:
        said, closed = await exchange(door.port, NEXT)

    assert closed
    assert said[0].is_cut


# drain


async def test_drain_closes_the_idle_at_once_and_lets_the_busy_finish():
    held = Held()

    async with serving(held) as door, connected(door.port) as idle, connected(door.port) as busy:
        await busy.send(NEXT)
        await held.began.wait()
        draining = asyncio.create_task(door.server.drain(5.0))
        assert await idle.read_until_closed(timeout_s=0.5) == b""
        assert not draining.done()
        with pytest.raises(OSError, match=r"refused|reset|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", door.port)
        held.let_go.set()
        answer = await busy.answer()
        await busy.read_until_closed(timeout_s=0.5)
        await asyncio.wait_for(draining, 1.0)

    assert answer.status == 200
    assert answer.headers["connection"] == "close"


async def test_drain_serves_a_request_that_is_half_there():
    async with serving() as door, connected(door.port) as raw:
        await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        await asyncio.sleep(0.02)
        draining = asyncio.create_task(door.server.drain(2.0))
        await asyncio.sleep(0.02)
        await raw.send(b"def")
        answer = await raw.answer()
        await asyncio.wait_for(draining, 1.0)

    assert answer.body == b"POST / abcdef"


async def test_drain_cuts_what_takes_too_long_and_waits_until_it_has_ended():
    """What it holds is given back, and its record kept, before the worker goes on to end."""
    held = Held()

    async with serving(held) as door, connected(door.port) as raw:
        await raw.send(NEXT)
        await held.began.wait()
        began = time.monotonic()
        await door.server.drain(0.2)

        assert held.tidied
        assert 0.15 < time.monotonic() - began < 1.0
        assert await raw.read_until_closed(timeout_s=0.5) == b""


async def test_a_drain_that_is_hurried_cuts_what_it_waited_for_and_waits_until_it_has_ended():
    held = Held()

    async with serving(held) as door, connected(door.port) as raw:
        await raw.send(NEXT)
        await held.began.wait()
        draining = asyncio.create_task(door.server.drain(60.0))
        await asyncio.sleep(0.02)
        door.server.hurry()
        await asyncio.wait_for(draining, 5.0)

        assert held.tidied


async def test_a_server_that_lingers_answers_an_idle_client_once_more_and_sends_it_away():
    """Nobody is closed while it may just be asking: a successor accepts, and this one waits a little."""
    async with serving() as door, connected(door.port) as kept:
        await kept.send(NEXT)
        await kept.answer()
        draining = asyncio.create_task(door.server.drain(5.0, linger_s=2.0))
        await asyncio.sleep(0.02)

        await kept.send(NEXT)
        answer = await kept.answer()
        await asyncio.wait_for(draining, 1.0)

    assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_a_server_that_lingers_keeps_a_client_that_was_not_told_to_leave():
    """Its stream began before the drain: it was told that the connection stays, and may ask again."""
    went_on = asyncio.Event()

    async def stream(request: Request, responder: Responder) -> None:
        responder.start(200, TEXT)
        responder.write(b"one")
        await went_on.wait()
        responder.end(b"two")

    async with serving(stream) as door, connected(door.port) as raw:
        await raw.send(NEXT)
        await asyncio.sleep(0.02)
        draining = asyncio.create_task(door.server.drain(5.0, linger_s=2.0))
        await asyncio.sleep(0.02)
        went_on.set()
        first = await raw.answer()
        await raw.send(NEXT)
        second = await raw.answer()
        await asyncio.wait_for(draining, 1.0)

    assert "connection" not in first.headers
    assert second.headers["connection"] == "close"


async def test_a_server_that_lingers_closes_who_stays_silent():
    async with serving() as door, connected(door.port) as silent:
        draining = asyncio.create_task(door.server.drain(5.0, linger_s=0.1))

        assert await silent.read_until_closed(timeout_s=1.0) == b""
        await asyncio.wait_for(draining, 1.0)


# in front of us


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
        + bytes([203, 0, 113, 7, 192, 0, 2, 1])
        + b"\x9c\x40\x01\xbb",
    ],
    ids=["version 1", "version 2"],
)
async def test_the_proxy_protocol_tells_who_the_client_is(header: bytes):
    async with serving(limits=Limits(proxy_protocol=True)) as door, connected(door.port) as raw:
        for at in range(len(header)):
            await raw.send(header[at : at + 1])
        await raw.send(NEXT)
        await raw.answer()

    assert door.requests[0].peer == "203.0.113.7"


async def test_without_the_proxy_header_nothing_is_answered_where_it_must_be():
    async with serving(limits=Limits(proxy_protocol=True)) as door:
        said, closed = await exchange(door.port, NEXT)

    assert closed
    assert [answer.status for answer in said] == [400]
    assert door.requests == []


async def test_a_proxy_header_that_never_comes_is_not_waited_for_for_ever():
    limits = Limits(proxy_protocol=True, header_timeout_s=0.3)
    async with serving(limits=limits) as door, connected(door.port) as raw:
        await raw.send(b"PROXY TCP4 203.0.113.7")

        assert await raw.read_until_closed(timeout_s=2.0) == b""


async def test_a_trusted_proxy_names_the_client_and_others_cannot():
    forwarded = get(b"/", b"X-Forwarded-For: 198.51.100.9\r\n")
    trusting = Limits(trusted_proxies=(ip_network("127.0.0.0/8"),))

    async with serving(limits=trusting) as trusted, serving() as other:
        await exchange(trusted.port, forwarded)
        await exchange(other.port, forwarded)

    assert trusted.requests[0].peer == "198.51.100.9"
    assert other.requests[0].peer == "127.0.0.1"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 of its own making, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, key_file = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, key_file


def _client_tls(*, most: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = most
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_tls_1_3_is_spoken(certificate):
    tls = server_tls(*map(str, certificate))
    async with serving(tls=tls) as door:
        client = _client_tls(most=ssl.TLSVersion.TLSv1_3)
        async with connected(door.port, client) as raw:
            await raw.send(NEXT)
            answer = await raw.answer()
            spoken = raw.writer.get_extra_info("ssl_object")

            assert answer.body == b"GET /next "
            assert spoken.version() == "TLSv1.3"
            assert spoken.selected_alpn_protocol() == "http/1.1"


async def test_tls_1_2_is_refused(certificate):
    async with serving(tls=server_tls(*map(str, certificate))) as door:
        client = _client_tls(most=ssl.TLSVersion.TLSv1_2)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(door.port, client):
                pass

    assert door.requests == []


async def test_plain_http_to_a_tls_port_gets_nothing(certificate):
    async with serving(tls=server_tls(*map(str, certificate))) as door, connected(door.port) as raw:
        await raw.send(NEXT)
        got = await raw.read_until_closed(timeout_s=2.0)

    assert b"HTTP" not in got
    assert door.requests == []


async def test_a_handshake_that_never_ends_is_cut(certificate):
    tls = server_tls(*map(str, certificate))
    async with serving(tls=tls, limits=Limits(header_timeout_s=0.3)) as door:
        with socket.create_connection(("127.0.0.1", door.port)) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, b"\x16\x03\x01")

            assert await asyncio.wait_for(loop.sock_recv(client, 100), 2.0) == b""


async def test_a_large_body_over_tls_is_refused_as_well(certificate):
    tls = server_tls(*map(str, certificate))
    client = _client_tls(most=ssl.TLSVersion.TLSv1_3)
    async with serving(tls=tls) as door, connected(door.port, client) as raw:
        await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        got = await raw.read_until_closed(timeout_s=2.0)

    assert [answer.status for answer in answers(got)] == [413]


def test_the_rig_sees_two_answers_where_there_are_two():
    """What all refusals here rest on."""
    two = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx" * 2

    assert [answer.body for answer in answers(two)] == [b"x", b"x"]


async def test_a_request_says_the_length_of_its_own_body_whichever_heads_came_before():
    def post(path: bytes, body: bytes) -> bytes:
        return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)

    sent = [(b"/a", b"1234567"), (b"/a", b"123"), (b"/a", b"1234567"), (b"/b", b"12345"), (b"/b", b"1234567")]
    async with serving() as door, connected(door.port) as raw:
        for path, body in sent:
            await raw.send(post(path, body))
            assert (await raw.answer()).body.endswith(body)

    assert [one.headers[b"content-length"] for one in door.requests] == [
        b"%d" % len(body) for _, body in sent
    ]
