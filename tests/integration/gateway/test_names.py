"""An engine that stands behind a name: what happens to requests when the name means something else."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway_rig import House, house
from pilothouse.adapters.engines._attached import pinned
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.kit import egress
from pilothouse.ports.engine import EngineInfo
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream

EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"all of it"},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)
STREAM = b',"stream":true'
FIRST, SECOND, METADATA = "127.0.0.1", "127.0.0.2", "169.254.169.254"


@dataclass
class NameServer:
    """The answers of the system's resolver; none is as when it is gone."""

    addresses: list[str] = field(default_factory=lambda: [FIRST])

    def lookup(self, host: str, port: int) -> list[str]:
        assert host == "engine.example"
        if not self.addresses:
            raise OSError("temporary failure in name resolution")
        return self.addresses


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer()
    monkeypatch.setattr(egress, "system_lookup", server.lookup)
    return server


async def answers(talk: Upstream, number: int) -> None:
    while True:
        await talk.request()
        await talk.say(CHUNKED_HEAD + chunked(*EVENTS))


@asynccontextmanager
async def facing(port: int) -> AsyncIterator[House]:
    url = f"http://engine.example:{port}/v1"
    pin = pinned(url, allow_private=True)
    async with house(OpenAIEngine(EngineInfo(name="llama"), url, model="m", pin=pin)) as running:
        yield running


async def serves(running: House) -> bool:
    answer = await running.ask(more=STREAM)
    return answer.status == 200 and b"all of it" in answer.body and b"[DONE]" in answer.body


async def test_a_name_that_moved_is_followed_when_the_old_machine_is_gone(names: NameServer) -> None:
    async with upstream(answers) as first:
        port = first.port
        async with facing(port) as h, upstream(answers, host=SECOND, port=port) as second:
            assert await serves(h)
            names.addresses = [SECOND]
            for talk in list(first.open):
                talk.close()

            served = [await serves(h) for _ in range(3)]

            assert served == [True] * 3
            assert (first.connections, second.connections) == (1, 1)
            assert set(h.codes) == {"ok"}


async def test_without_a_name_server_what_is_connected_serves_on_and_the_rest_is_told(
    names: NameServer,
) -> None:
    async with upstream(answers) as server, facing(server.port) as h:
        assert await serves(h)
        names.addresses = []
        assert await serves(h)

        for talk in list(server.open):
            talk.close()
        refused = await h.ask(more=STREAM)
        names.addresses = [FIRST]
        is_back = await serves(h)

    assert refused.status == 503
    assert json.loads(refused.body)["error"]["code"] == "engine_unavailable"
    assert is_back


async def test_a_name_that_turns_to_what_must_not_be_reached_is_not_followed(names: NameServer) -> None:
    async with upstream(answers) as server, facing(server.port) as h:
        assert await serves(h)
        names.addresses = [FIRST, METADATA]
        for talk in list(server.open):
            talk.close()

        refused = await h.ask(more=STREAM)

    assert refused.status == 503
    assert server.connections == 1, "one bad address among good ones is how rebinding begins"
