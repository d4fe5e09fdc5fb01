"""
The load of servers that somebody else runs.

llama.cpp's is the real one; vLLM's and SGLang's are texts in the format that they
publish, for neither runs in these tests.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from engine_home import Home
from pilothouse.adapters.engines._server_load import LoadKind, ServerEngine
from pilothouse.adapters.engines.openai import OpenAIDriver
from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.status import Load, Replica
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.testing.conformance_engine import ask
from upstream_rig import Upstream, upstream, whole

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
"""
RANKS = (
    VLLM
    + """\
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
"""
)
SGLANG = """\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m"} 4.0
sglang:token_usage{model_name="m"} 0.5
sglang:num_queue_reqs{model_name="m"} 1.0
"""
NOT_FOUND = whole(b"{}", status=b"404 Not Found")


class Server:
    """Says metrics, or that there are none; and how often it was asked for what."""

    def __init__(self, metrics: str | None) -> None:
        self.metrics = metrics
        self.asked: list[str] = []

    async def script(self, talk: Upstream, _: int) -> None:
        while True:
            path = (await talk.request()).split(b" ")[1].decode()
            self.asked.append(path)
            has_it = path == "/metrics" and self.metrics is not None
            await talk.say(whole((self.metrics or "").encode()) if has_it else NOT_FOUND)


@asynccontextmanager
async def attached(
    script: Callable[[Upstream, int], Awaitable[None]], kind: LoadKind
) -> AsyncIterator[ServerEngine]:
    async with upstream(script) as listening:
        url = f"http://127.0.0.1:{listening.port}/v1"
        engine = OpenAIDriver().connect(
            url, model="m", context_tokens=0, allow_private=True, options={"base_url": url, "load": kind}
        )
        async with aclosing(engine):
            yield engine


@pytest.mark.parametrize("is_named", [True, False], ids=["named", "auto"])
@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        (VLLM, "vllm", Load(running=3, waiting=2, kv_used=0.25)),
        (RANKS, "vllm", Load(running=4, waiting=2, kv_used=0.5)),
        (SGLANG, "sglang", Load(running=4, waiting=1, kv_used=0.5)),
    ],
)
async def test_what_is_published_is_read(text: str, kind: LoadKind, wanted: Load, is_named: bool) -> None:
    async with attached(Server(text).script, kind if is_named else "auto") as engine:
        assert await engine.load() == wanted


async def test_a_server_that_says_nothing_is_asked_once_where_that_was_to_be_found_out() -> None:
    server = Server(None)

    async with attached(server.script, "auto") as engine:
        assert [await engine.load() for _ in range(3)] == [Load()] * 3

    assert server.asked == ["/metrics", "/slots"]


async def test_a_server_whose_metrics_are_away_for_a_moment_is_not_worse_for_it() -> None:
    server = Server(None)

    async with attached(server.script, "vllm") as engine:
        assert await engine.load() == Load()
        server.metrics = VLLM
        assert (await engine.load()).running == 3


async def test_nobody_is_asked_where_that_is_not_declared() -> None:
    server = Server(VLLM)

    async with attached(server.script, "none") as engine:
        assert await engine.load() == Load()

    assert server.asked == []


@pytest.mark.parametrize("text", ["", "vllm:num_requests_running many", "\x00" * 100, "{" * 100])
async def test_what_is_no_metric_is_no_load(text: str) -> None:
    async with attached(Server(text).script, "vllm") as engine:
        assert await engine.load() == Load()


async def test_a_server_that_is_gone_is_told() -> None:
    async with upstream(Server(VLLM).script) as listening:
        url = f"http://127.0.0.1:{listening.port}/v1"
    engine = OpenAIDriver().connect(
        url, model="m", context_tokens=0, allow_private=True, options={"base_url": url, "load": "auto"}
    )
    async with aclosing(engine):
        with pytest.raises(EngineUnavailable):
            await engine.load()


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["auto", "llama"])
async def test_the_real_llama_server_says_what_runs(
    smollm2_replica: tuple[Home, Replica], kind: LoadKind
) -> None:
    _, replica = smollm2_replica
    engine = ServerEngine(EngineInfo(name="openai"), replica.address, model="m", kind=kind)
    async with aclosing(engine):
        assert (await engine.load()).running == 0
        async with aclosing(engine.stream(ask("Count up."), Placement(), deadline_s=60)) as stream:
            await anext(stream)
            busy = await engine.load()
        async with asyncio.timeout(10):
            while (after := await engine.load()).running:
                await asyncio.sleep(0.05)

    assert busy.running == 1
    assert busy.kv_used is not None
    assert busy.kv_used > 0
    assert after.waiting == 0
