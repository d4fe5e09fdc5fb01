"""What an engine's HTTP says, as the engine port has it: against a server that answers by script."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.adapters.engines.openai import OpenAIDriver
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.kit import egress
from pilothouse.ports.engine import EngineInfo
from pilothouse.testing.conformance_engine import answer, ask, ends_of, text_of, usage_of
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream, whole


@asynccontextmanager
async def engine_that(
    script: Callable[[Upstream, int], Awaitable[None]], *, slots: bool = True
) -> AsyncIterator[OpenAIEngine]:
    async with upstream(script) as listening:
        engine = OpenAIEngine(
            EngineInfo(name="llama.cpp", slots=slots), f"http://127.0.0.1:{listening.port}/v1", model="m"
        )
        async with aclosing(engine):
            yield engine


def event(**said: object) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def choice(text: str, finish_reason: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": None}]


def answering(data: bytes) -> Callable[[Upstream, int], Awaitable[None]]:
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(data)

    return script


async def test_progress_and_bare_roles_are_not_passed_on() -> None:
    body = chunked(
        event(choices=choice(""), prompt_progress={"total": 9, "processed": 0}),
        event(choices=[{"index": 0, "delta": {"role": "assistant", "content": None}}]),
        event(choices=choice("Ahoy")),
        event(choices=choice("", "stop")),
        event(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 1}),
        b"data: [DONE]\n\n",
    )

    async with engine_that(answering(CHUNKED_HEAD + body)) as engine:
        chunks = await answer(engine, ask())

    assert len(chunks) == 3
    assert (text_of(chunks), ends_of(chunks), usage_of(chunks).input) == ("Ahoy", {0: "stop"}, 9)


@pytest.mark.parametrize("slots", [True, False])
async def test_only_llama_cpp_is_asked_for_what_only_it_knows(slots: bool) -> None:
    asked: list[dict[str, object]] = []

    async def script(talk: Upstream, number: int) -> None:
        asked.append(json.loads((await talk.request()).partition(b"\r\n\r\n")[2]))
        await talk.say(whole(b"{}", status=b"400 Bad Request"))

    async with engine_that(script, slots=slots) as engine:
        with pytest.raises(InvalidRequest):
            await answer(engine, ask())

    assert ("return_progress" in asked[0], "cache_prompt" in asked[0]) == (slots, slots)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (b"400 Bad Request", {"type": "x"}, InvalidRequest),
        (
            b"400 Bad Request",
            {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8},
            ContextLengthExceeded,
        ),
        (b"429 Too Many", {}, Overloaded),
        (b"501 Not Implemented", {}, NotSupported),
        (b"503 Service Unavailable", {"message": "Loading model"}, EngineUnavailable),
        (b"503 Service Unavailable", {"message": "full"}, Overloaded),
        (b"500 Error", {"message": "the current context does not support logits"}, NotSupported),
        (b"500 Error", {"message": "out of memory"}, UpstreamError),
        (b"302 Found", {}, UpstreamError),
    ],
)
async def test_a_refusal_is_an_error_of_ours_without_its_text(
    status: bytes, error: dict[str, object], kind: type[PilothouseError]
) -> None:
    data = whole(json.dumps({"error": {"message": "secret prompt", **error}}).encode(), status=status)

    async with engine_that(answering(data)) as engine:
        with pytest.raises(kind) as refused:
            await answer(engine, ask())

    assert type(refused.value) is kind
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 400, "type": "BadRequestError"}, InvalidRequest),
        (
            {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8},
            ContextLengthExceeded,
        ),
        ({"code": 500, "type": "InternalServerError"}, UpstreamError),
        ({"code": None}, UpstreamError),
    ],
)
async def test_a_refusal_that_comes_as_an_event_is_told_from_a_fault_of_the_engine(
    error: dict[str, object], kind: type[PilothouseError]
) -> None:
    body = chunked(event(error={"message": "secret prompt", **error}), b"data: [DONE]\n\n")

    async with engine_that(answering(CHUNKED_HEAD + body)) as engine:
        with pytest.raises(kind) as refused:
            await answer(engine, ask())

    assert type(refused.value) is kind
    assert "secret" not in refused.value.message


async def test_load_counts_what_runs_and_its_share_of_the_cache() -> None:
    slots = [
        {"is_processing": True, "n_ctx": 100, "n_prompt_tokens": 30},
        {"is_processing": False, "n_ctx": 100, "n_prompt_tokens": 90},
    ]

    async with engine_that(answering(whole(json.dumps(slots).encode()))) as engine:
        load = await engine.load()

    assert (load.running, load.waiting, load.kv_used) == (1, 0, 0.15)


async def test_load_without_slots_says_nothing_of_the_cache() -> None:
    async with engine_that(answering(whole(b"[]"))) as engine:
        assert (await engine.load()).kv_used is None


async def test_load_that_cannot_be_read_is_an_error() -> None:
    async with engine_that(answering(whole(b"{}"))) as engine:
        with pytest.raises(UpstreamError):
            await engine.load()


async def test_health_of_a_model_of_vectors_is_a_vector() -> None:
    async def script(talk: Upstream, number: int) -> None:
        while True:
            request = await talk.request()
            if b"/embeddings" in request:
                await talk.say(whole(json.dumps({"data": [{"embedding": [1.0], "index": 0}]}).encode()))
            else:
                error = {"error": {"message": "the current context does not support logits computation"}}
                await talk.say(whole(json.dumps(error).encode(), status=b"500 Error"))

    async with engine_that(script) as engine:
        assert (await engine.health(deadline_s=5.0)).ok


async def test_an_answer_that_ends_without_an_end_is_an_error() -> None:
    async with engine_that(answering(CHUNKED_HEAD + chunked(event(choices=choice("Ahoy"))))) as engine:
        with pytest.raises(UpstreamError):
            await answer(engine, ask())


async def test_a_server_that_hangs_up_at_once_is_unavailable() -> None:
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        talk.reset()

    async with engine_that(script) as engine:
        with pytest.raises(EngineUnavailable):
            await answer(engine, ask())


async def test_a_name_that_leads_elsewhere_by_now_is_followed_and_never_to_where_it_may_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each connection asks anew: a server that moved is found without a restart, and so is a rebinding."""

    def saying(word: str) -> bytes:
        body = chunked(event(choices=choice(word)), event(choices=choice("", "stop")), b"data: [DONE]\n\n")
        return CHUNKED_HEAD + body

    async def moved(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(saying("there"))(Upstream(reader, writer), 0)
        writer.close()

    now = "127.0.0.1"
    monkeypatch.setattr(egress, "system_lookup", lambda host, port: [now])
    async with upstream(answering(saying("here"))) as listening:
        elsewhere = await asyncio.start_server(moved, "127.0.0.2", listening.port)
        engine = OpenAIDriver().connect(
            f"http://models.example:{listening.port}/v1", model="m", context_tokens=0, allow_private=True
        )
        async with elsewhere, aclosing(engine):
            assert text_of(await answer(engine, ask())) == "here"
            now = "127.0.0.2"
            assert text_of(await answer(engine, ask())) == "there"
            now = "169.254.169.254"
            with pytest.raises(PilothouseError):
                await answer(engine, ask())
        assert listening.connections == 1
