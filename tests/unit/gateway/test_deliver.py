"""What a stream begins with is made while the engine works, and is the same when it was not."""

import asyncio
from types import SimpleNamespace

import pytest

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.gateway.call import Call
from pilothouse.gateway.deliver import Telling
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.wire.openai.dialect import CHAT
from pilothouse.wire.openai.inbound import read_chat

BODY = b'{"model":"chat","messages":[{"role":"user","content":"Hello"}],"stream":true}'


class Line:
    """A client's end of a connection: what came, in order with what else happened."""

    def __init__(self) -> None:
        self.server = SimpleNamespace(cohort=Cohort(), is_draining=False)
        self.log: list[str] = []
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data


def telling(line: Line) -> Telling:
    request = Request("POST", "/v1/chat/completions", "", {}, "127.0.0.1")
    request.received_ns = 1
    call = Call(request, Responder(line, keep_alive=True, chunked=False), CHAT)
    call.id, call.created_at = "req_1", 7.0
    return Telling(call, read_chat(BODY))


async def test_what_is_asked_of_an_engine_goes_out_before_what_can_be_done_meanwhile():
    line = Line()
    cohort, log = line.server.cohort, line.log

    async def work() -> None:
        telling(line).responder.meanwhile(lambda: log.append("meanwhile"))
        cohort.send(lambda data: log.append(data.decode()), b"asked")
        log.append("ran")

    cohort.start(work(), lambda error: log.append(f"ended {error}"))
    await asyncio.sleep(0)

    assert log == ["ran", "ended None", "asked", "meanwhile"]


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_client_is_told_the_same_however_early_it_was_made_ready(times: int):
    line = Line()
    told = telling(line)
    for _ in range(times):
        told.get_ready()
    assert not line.sent

    told.tell(Chunk((), None))
    assert not line.sent, "a chunk that says nothing begins no stream"
    told.tell(Chunk((Delta("a"),)))

    head, _, events = line.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nx-request-id: req_1\r\n" in head
    assert int(head.rpartition(b"x-pilothouse-overhead-us: ")[2].split(b"\r\n")[0]) >= 0
    assert events.count(b"data: ") == 2
    assert b'"role":"assistant"' in events.partition(b"\n\n")[0]
    assert b'"content":"a"' in events
