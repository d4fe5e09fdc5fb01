"""The published OpenAI client, unchanged, gets what it expects: answers, streams and its own errors."""

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

CHAT, VECTORS = "chat", "vectors"
HELLO: list[Any] = [{"role": "user", "content": "Say hello to the sea in one short sentence."}]


@pytest.fixture
def client(served):
    with OpenAI(base_url=served.base_url, api_key=served.api_key, max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
def async_client(served) -> Callable[[], AsyncOpenAI]:
    """Made within the test's own loop."""
    return lambda: AsyncOpenAI(base_url=served.base_url, api_key=served.api_key, max_retries=0, timeout=60)


@pytest.fixture
def scripted(served):
    """For what a real engine does not do on demand."""
    if not served.is_scripted:
        pytest.skip("the real engine does not fail on demand")
    return served


# answers


def test_a_chat(client):
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, temperature=0, max_tokens=8)

    (choice,) = answer.choices
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == CHAT
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_the_newer_name_of_max_tokens_and_harmless_fields_pass(client):
    answer = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "developer", "content": "Be brief."}, *HELLO],
        max_completion_tokens=4,
        temperature=0.7,
        top_p=0.9,
        seed=7,
        stop=["\n\n"],
        presence_penalty=0.1,
        frequency_penalty=0.1,
        user="ann",
        metadata={"a": "b"},
        store=False,
    )

    assert answer.usage.completion_tokens <= 4


def test_text_parts_are_taken_as_text(client):
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]

    answer = client.chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": parts}], temperature=0, max_tokens=4
    )

    assert answer.choices[0].message.content


def test_a_completion(client):
    answer = client.completions.create(model=CHAT, prompt="Once upon a time", temperature=0, max_tokens=6)

    assert answer.object == "text_completion"
    assert answer.choices[0].text
    assert answer.id.startswith("cmpl-")


def test_several_choices(client):
    answer = client.chat.completions.create(
        model=CHAT, messages=HELLO, n=2, max_tokens=6, seed=1, temperature=1.0
    )

    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.message.content for choice in answer.choices)
    assert answer.usage.completion_tokens <= 12


def test_log_probabilities(client):
    answer = client.chat.completions.create(
        model=CHAT, messages=HELLO, temperature=0, max_tokens=4, logprobs=True, top_logprobs=2
    )

    steps = answer.choices[0].logprobs.content
    # The token that ends an answer counts, and has no text of which a probability could be told.
    assert answer.usage.completion_tokens - 1 <= len(steps) <= answer.usage.completion_tokens
    assert all(step.logprob <= 0 for step in steps)
    assert all(len(step.top_logprobs) == 2 for step in steps)
    assert "".join(step.token for step in steps).strip()


def test_a_schema_shapes_the_answer_or_the_caller_is_told(client, served):
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["grey", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "sea", "schema": schema, "strict": True}}

    def ask() -> Any:
        return client.chat.completions.create(
            model=CHAT, messages=HELLO, temperature=0, max_tokens=60, response_format=wanted
        )

    if served.is_scripted:  # it says words, whatever is asked
        with pytest.raises(openai.InternalServerError, match="response_format") as refused:
            ask()
        assert refused.value.status_code == 502
    else:
        assert json.loads(ask().choices[0].message.content)["colour"] in ("grey", "blue")


@pytest.mark.parametrize("dimension", [384])
def test_embeddings_are_the_same_in_both_encodings(client, served, dimension):
    texts = ["The sea was grey.", "A lamp turned."]

    packed = client.embeddings.create(model=VECTORS, input=texts)  # the client asks for base64
    plain = client.embeddings.create(model=VECTORS, input=texts, encoding_format="float")

    assert [item.index for item in packed.data] == [0, 1]
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-4)
        if not served.is_scripted:
            assert len(one.embedding) == dimension
            assert math.sqrt(sum(x * x for x in one.embedding)) == pytest.approx(1.0, abs=1e-3)


def test_models(client):
    listed = {model.id for model in client.models.list()}

    assert {CHAT, VECTORS} <= listed
    assert client.models.retrieve(CHAT).owned_by == "pilothouse"


# streams


def test_a_stream(client):
    stream = client.chat.completions.create(
        model=CHAT, messages=HELLO, temperature=0, max_tokens=8, stream=True
    )

    chunks = list(stream)

    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_with_usage(client):
    *chunks, last = client.chat.completions.create(
        model=CHAT,
        messages=HELLO,
        temperature=0,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )

    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert 0 < last.usage.completion_tokens <= 8


def test_a_stream_of_several_choices(client):
    texts = {0: "", 1: ""}

    for chunk in client.chat.completions.create(
        model=CHAT, messages=HELLO, n=2, max_tokens=5, stream=True, seed=1, temperature=1.0
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""

    assert all(texts.values())


def test_a_stream_of_a_completion(client):
    stream = client.completions.create(
        model=CHAT, prompt="Once upon", temperature=0, max_tokens=5, stream=True
    )

    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices)


def test_the_clients_own_stream_helper(client):
    with client.chat.completions.stream(model=CHAT, messages=HELLO, temperature=0, max_tokens=6) as stream:
        kinds = {event.type for event in stream}
        final = stream.current_completion_snapshot

    assert "content.delta" in kinds
    assert final.choices[0].message.content


def test_a_stream_that_is_left_halfway_leaves_the_server_well(client):
    for _ in range(5):
        with client.chat.completions.create(
            model=CHAT, messages=HELLO, temperature=0, max_tokens=200, stream=True
        ) as stream:
            next(iter(stream))

    assert client.chat.completions.create(model=CHAT, messages=HELLO, temperature=0, max_tokens=2).choices


async def test_the_async_client(async_client):
    async with async_client() as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model=CHAT,
                    messages=[{"role": "user", "content": f"Count from {n}."}],
                    temperature=0,
                    max_tokens=4,
                )
                for n in range(6)
            )
        )
        stream = await client.chat.completions.create(
            model=CHAT, messages=HELLO, temperature=0, max_tokens=6, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        vectors = await client.embeddings.create(model=VECTORS, input="The sea was grey.")

    assert all(answer.choices[0].message.content for answer in answers)
    assert len({answer.id for answer in answers}) == 6
    assert text
    assert vectors.data[0].embedding


async def test_an_async_request_that_is_cancelled_leaves_the_server_well(async_client):
    async with async_client() as client:
        for _ in range(3):
            task = asyncio.create_task(
                client.chat.completions.create(model=CHAT, messages=HELLO, temperature=0, max_tokens=500)
            )
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        answer = await client.chat.completions.create(model=CHAT, messages=HELLO, temperature=0, max_tokens=2)

    assert answer.choices


# headers


def test_the_head_says_which_request_it_was_and_what_it_cost(client):
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=HELLO, temperature=0, max_tokens=4
    )

    answer = raw.parse()
    assert raw.headers["x-request-id"].startswith("req_")
    assert int(raw.headers["x-pilothouse-overhead-us"]) >= 0
    assert raw.headers["x-pilothouse-deployment"] == CHAT
    assert answer._request_id == raw.headers["x-request-id"]
    assert answer.id.removeprefix("chatcmpl-") == answer._request_id.removeprefix("req_")


def test_a_streams_head_says_so_too(client):
    with client.chat.completions.with_streaming_response.create(
        model=CHAT, messages=HELLO, temperature=0, max_tokens=4, stream=True
    ) as response:
        assert response.headers["x-request-id"].startswith("req_")
        assert response.headers["content-type"].startswith("text/event-stream")
        body = response.read()

    assert body.endswith(b"data: [DONE]\n\n")


# errors


@pytest.mark.parametrize(
    ("asked", "error", "code", "param"),
    [
        ({"model": "nope"}, openai.NotFoundError, "model_not_found", "model"),
        ({"n": 9}, openai.BadRequestError, "invalid_request", "n"),
        ({"temperature": -1}, openai.BadRequestError, "invalid_request", "temperature"),
        ({"messages": []}, openai.BadRequestError, "invalid_request", "messages"),
        ({"extra_body": {"id_slot": 1}}, openai.BadRequestError, "invalid_request", "id_slot"),
        ({"verbosity": "low"}, openai.InternalServerError, "not_supported", "verbosity"),
    ],
)
def test_a_bad_request_is_the_clients_own_error(client, asked, error, code, param):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": CHAT, "messages": HELLO, **asked})

    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.request_id.startswith("req_")


def test_a_prompt_that_does_not_fit_says_so(client):
    long = [{"role": "user", "content": "the sea was grey and " * 2000}]

    for is_streamed in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=CHAT, messages=long, stream=is_streamed)
        assert caught.value.code == "context_length_exceeded"


def test_a_wrong_key_is_an_authentication_error(served):
    with OpenAI(base_url=served.base_url, api_key="ph_wrong", max_retries=0) as client:
        for call in (
            client.models.list,
            lambda: client.chat.completions.create(model=CHAT, messages=HELLO),
            lambda: client.embeddings.create(model=VECTORS, input="x"),
        ):
            with pytest.raises(openai.AuthenticationError) as caught:
                call()
            assert caught.value.code == "invalid_api_key"


def test_a_model_that_does_something_else_says_so(client):
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=VECTORS, messages=HELLO)

    assert caught.value.status_code == 501
    assert caught.value.code == "not_supported"


def test_what_is_not_built_yet_says_so(client):
    with pytest.raises(openai.InternalServerError) as caught:
        client.moderations.create(model=CHAT, input="Hi")

    assert (caught.value.status_code, caught.value.code) == (501, "not_supported")


def test_a_role_that_may_not_call_is_a_permission_error(scripted):
    with (
        OpenAI(base_url=scripted.base_url, api_key=scripted.auditor_key, max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError) as caught,
    ):
        client.chat.completions.create(model=CHAT, messages=HELLO)

    assert caught.value.code == "permission_denied"


def test_a_stream_that_breaks_off_raises_after_what_was_said(scripted, client):
    said: list[str] = []

    def listen() -> None:
        stream = client.chat.completions.create(model="broken", messages=HELLO, stream=True)
        said.extend(chunk.choices[0].delta.content or "" for chunk in stream)

    with pytest.raises(openai.APIError) as caught:
        listen()

    assert "".join(said) == "half"
    assert caught.value.code == "upstream_error"


def test_the_client_comes_back_when_it_is_told_to(scripted):
    with OpenAI(base_url=scripted.base_url, api_key=scripted.api_key, max_retries=1) as client:
        answer = client.chat.completions.create(model="busy", messages=HELLO)

    assert answer.choices[0].message.content


def test_a_client_that_gives_up_waiting_hangs_up(scripted, client):
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="endless", messages=HELLO, timeout=0.3)
