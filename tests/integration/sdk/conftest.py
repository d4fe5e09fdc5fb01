"""
Two servers for one set of tests: the data plane in this process with an engine
that follows a script, and the real program with the real engine and models.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from gateway_rig import AUDITOR, DEVELOPER, endpoint_entry, house_in_thread, key, replica_entry, snapshot
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import ContextLengthExceeded, Overloaded, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from program_rig import program
from watched_engine import WatchedEngine

SPEC = """
version: 1
models:
  smollm2: {{source: "file:{chat}"}}
  minilm: {{source: "file:{vectors}"}}
deployments:
  chat: {{model: smollm2, engine_options: {{context_tokens: 1024, slots: 2}}}}
  vectors: {{model: minilm, engine_options: {{context_tokens: 512, slots: 1}}}}
endpoints:
  chat: {{routes: [{{deployment: chat}}]}}
  vectors: {{routes: [{{deployment: vectors}}]}}
"""


@dataclass(frozen=True)
class Served:
    """Where the server is, a key for it, and whether its engine follows a script."""

    base_url: str
    api_key: str
    is_scripted: bool
    auditor_key: str = ""


@pytest.fixture(scope="session", params=["scripted", pytest.param("real", marks=pytest.mark.engine)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with ExitStack() as stack:
        if request.param == "scripted":
            running = stack.enter_context(house_in_thread(lambda entry: ENGINES[entry.deployment], SNAPSHOT))
            yield Served(running.url, key(DEVELOPER), is_scripted=True, auditor_key=key(AUDITOR))
            return
        chat: Path = request.getfixturevalue("smollm2_gguf")
        vectors: Path = request.getfixturevalue("minilm_gguf")
        home = tmp_path_factory.mktemp("sdk") / "home"
        real = stack.enter_context(program(home, SPEC.format(chat=chat, vectors=vectors)))
        yield Served(real.url + "/v1", real.admin_key, is_scripted=False)


def _logprobs(text: str, asked: GenerateRequest) -> msgspec.Raw | None:
    if not asked.sampling.logprobs:
        return None
    top = [{"token": text, "logprob": -0.25, "bytes": None}] * (asked.sampling.top_logprobs or 0)
    step = {"token": text, "logprob": -0.25, "bytes": None, "top_logprobs": top}
    return msgspec.Raw(json.dumps({"content": [step], "refusal": None}).encode())


async def _speak(asked: GenerateRequest) -> AsyncIterator[Chunk]:
    """Words, as many as may be; long prompts do not fit."""
    if asked.prompt_bytes > 10_000:
        raise ContextLengthExceeded(f"the prompt has {asked.prompt_bytes} tokens", param="messages")
    count = min(asked.max_tokens or 8, 8)
    for n in range(count):
        for index in range(asked.choices):
            text = f" word{n}"
            yield Chunk((Delta(text, index, None, _logprobs(text, asked)),))
        await asyncio.sleep(0)
    finish = "length" if count == asked.max_tokens else "stop"
    yield Chunk(tuple(Delta("", index, finish) for index in range(asked.choices)))
    yield Chunk((), Usage(11, count * asked.choices, 0))


async def _break_off(asked: GenerateRequest) -> AsyncIterator[Chunk]:
    yield Chunk((Delta("half"),))
    raise UpstreamError("the engine hung up")


class _BusyOnce:
    """Says once that it is busy, and then answers."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, asked: GenerateRequest) -> AsyncIterator[Chunk]:
        self.calls += 1
        if self.calls == 1:
            raise Overloaded("try again", retry_after_s=1.0)
        async for chunk in _speak(asked):
            yield chunk


async def _go_on(asked: GenerateRequest) -> AsyncIterator[Chunk]:
    while True:
        yield Chunk((Delta("on "),))
        await asyncio.sleep(0.01)


ENGINES = {
    "chat": WatchedEngine(_speak),
    "vectors": WatchedEngine(),
    "broken": WatchedEngine(_break_off),
    "busy": WatchedEngine(_BusyOnce()),
    "endless": WatchedEngine(_go_on),
}
SNAPSHOT = snapshot(
    *(replica_entry(f"{name}-0", name) for name in ENGINES),
    endpoints=tuple(
        endpoint_entry(name, tasks=("embedding",) if name == "vectors" else ("chat", "completion"))
        for name in ENGINES
    ),
)
