"""The OpenAI SDK, unchanged, against the real program with the real engine and models."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PILOTHOUSE = Path(sys.executable).with_name("pilothouse")
ASK = [{"role": "user", "content": "Name three colours."}]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, smollm2_gguf: Path, minilm_gguf: Path
) -> Iterator[dict[str, str]]:
    """`pilothouse up` on a chat model and an embedding model; gives base_url and api_key."""
    home = tmp_path_factory.mktemp("sdk") / "home"
    spec = {
        "version": 1,
        "models": {
            "smollm2": {"source": f"file:{smollm2_gguf}", "licence": "Apache-2.0"},
            "minilm": {"source": f"file:{minilm_gguf}", "licence": "Apache-2.0"},
        },
        "deployments": {
            "smollm2": {"model": "smollm2", "engine_options": {"context_tokens": 512, "slots": 2}},
            "minilm": {"model": "minilm", "engine_options": {"slots": 1}},
        },
        "endpoints": {
            "smollm2": {"routes": [{"deployment": "smollm2"}]},
            "embeddings": {"routes": [{"deployment": "minilm"}]},
        },
    }
    (home.parent / "spec.yaml").write_text(json.dumps(spec))
    up = [PILOTHOUSE, "up", "--home", home, "--port", "0", "--config", home.parent / "spec.yaml"]
    done = subprocess.run(
        [*up, "--detach", "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        ready = json.loads(done.stdout.splitlines()[-1])
        assert ready["event"] == "ready"
        key = Path(ready["admin_key_file"]).read_text().strip()
        yield {"base_url": ready["url"] + "/v1", "api_key": key}
    finally:
        subprocess.run([PILOTHOUSE, "down", "--home", home], capture_output=True, timeout=60, check=False)


@pytest.fixture
def client(server: dict[str, str]) -> Iterator[OpenAI]:
    with OpenAI(**server, max_retries=8, timeout=60) as client:
        yield client


def test_a_whole_answer(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="smollm2", messages=ASK, max_tokens=8)

    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    assert raw.headers["x-request-id"].startswith("req_")
    assert int(raw.headers["x-pilothouse-overhead-us"]) < 1_000_000


def test_a_stream_with_usage_says_what_the_whole_answer_says(client: OpenAI) -> None:
    asked = {"model": "smollm2", "messages": ASK, "max_tokens": 12, "temperature": 0, "seed": 7}
    whole = client.chat.completions.create(**asked)

    events = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )

    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == whole.choices[0].message.content
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert events[0].choices[0].delta.role == "assistant"


def test_several_choices_and_log_probabilities(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2",
        messages=ASK,
        max_tokens=4,
        n=3,
        seed=1,
        temperature=1.0,
        logprobs=True,
        top_logprobs=2,
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.logprobs is not None and choice.logprobs.content for choice in answer.choices)
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_stop_ends_the_answer_before_it_is_said(client: OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2", prompt="1, 2, 3, 4, 5,", max_tokens=24, temperature=0, stop=["8"]
    )

    assert "8" not in answer.choices[0].text
    assert answer.choices[0].finish_reason == "stop"


def test_a_json_schema_is_kept_to(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    answer = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Give me a number."}],
        max_tokens=40,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    )

    assert isinstance(json.loads(answer.choices[0].message.content or "")["n"], int)


def test_embeddings_come_as_the_sdk_asks_for_them(client: OpenAI) -> None:
    texts = ["a cat", "a kitten", "the stock market"]

    vectors = [item.embedding for item in client.embeddings.create(model="embeddings", input=texts).data]

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert len(vectors[0]) == 384
    assert dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]) + 0.2


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["embeddings", "smollm2"]


@pytest.mark.parametrize(
    ("error", "code", "asked"),
    [
        (openai.NotFoundError, "model_not_found", {"model": "nothing"}),
        (openai.BadRequestError, "invalid_request", {"temperature": 9}),
        (openai.BadRequestError, "invalid_request", {"messages": []}),
        (openai.BadRequestError, "invalid_request", {"extra_body": {"n_discard": -1}}),
        (
            openai.BadRequestError,
            "context_length_exceeded",
            {"messages": [{"role": "user", "content": "hi, " * 2000}]},
        ),
        (openai.InternalServerError, "not_supported", {"tools": []}),
    ],
)
def test_errors_are_the_sdks_own(
    client: OpenAI, error: type[openai.APIStatusError], code: str, asked: dict[str, object]
) -> None:
    with pytest.raises(error) as caught:
        client.with_options(max_retries=0).chat.completions.create(
            **{"model": "smollm2", "messages": ASK, "max_tokens": 4, **asked}
        )

    assert caught.value.code == code
    assert caught.value.request_id is not None


def test_a_wrong_key_is_an_authentication_error(server: dict[str, str]) -> None:
    with (
        OpenAI(base_url=server["base_url"], api_key="ph_wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()

    assert caught.value.code == "invalid_api_key"


async def test_many_at_once_by_the_async_client(server: dict[str, str]) -> None:
    async with AsyncOpenAI(**server, max_retries=0, timeout=60) as client:

        async def ask(number: int) -> int:
            stream = await client.chat.completions.create(
                model="smollm2", messages=ASK, max_tokens=6, seed=number, stream=True
            )
            return len([event async for event in stream])

        counts = await asyncio.gather(*(ask(number) for number in range(12)))

    assert all(count >= 2 for count in counts)
