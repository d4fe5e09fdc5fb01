"""Moderation by a model of one's own, asked by the published client; and the how-to's own blocks."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import openai
import pytest
from msgspec import Raw

from gateway_rig import DEVELOPER, endpoint_entry, house_in_thread, key, replica_entry, snapshot
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.openai.moderation import CATEGORIES
from program_rig import program
from watched_engine import WatchedEngine, words

HOWTO = Path(__file__).parents[3] / "docs" / "howto" / "moderate.md"
TASKS = ("chat", "completion", "moderation")


def steps(verdicts: dict[str, bool]) -> list[dict[str, Any]]:
    """Tokens of such an answer: where it had to choose, three of four parts went to what it says."""
    said: list[dict[str, Any]] = []
    for name, verdict in verdicts.items():
        said.append({"token": f'"{name}":', "logprob": -0.1, "top_logprobs": []})
        word, other = ("true", "false") if verdict else ("false", "true")
        top = [{"token": word, "logprob": -0.2877}, {"token": other, "logprob": -1.3863}]
        said.append({"token": word, "logprob": -0.2877, "top_logprobs": top})
    return said


async def _judge(ask: GenerateRequest) -> AsyncIterator[Chunk]:
    is_angry = b"hurt you" in bytes(ask.prompt)
    verdicts = {name: is_angry and name == "violence" for name in CATEGORIES}
    raw = Raw(json.dumps({"content": steps(verdicts)}).encode())
    yield Chunk((Delta(json.dumps(verdicts), 0, "stop", raw),), Usage(9, 9))


@contextmanager
def client_of(engine: WatchedEngine, *judges: str) -> Iterator[openai.OpenAI]:
    entries = [endpoint_entry(name, tasks=TASKS) for name in judges] or [endpoint_entry("chat")]
    served = snapshot(*(replica_entry(f"{e.name}-0", e.name) for e in entries), endpoints=tuple(entries))
    with (
        house_in_thread(engine, served) as running,
        openai.OpenAI(base_url=running.url, api_key=key(DEVELOPER), max_retries=0) as client,
    ):
        yield client


def test_each_text_has_its_verdict_and_scores() -> None:
    engine = WatchedEngine(_judge)
    with client_of(engine, "chat") as client:
        found = client.moderations.create(input=["I like the sea.", "I will hurt you."])

    calm, angry = found.results
    assert found.model == "chat"
    assert (calm.flagged, angry.flagged) == (False, True)
    assert angry.categories.violence
    assert not angry.categories.hate
    assert angry.category_scores.violence == pytest.approx(0.75, abs=0.01)
    assert angry.category_scores.self_harm_intent == pytest.approx(0.25, abs=0.01)
    assert sorted(angry.to_dict()["categories"]) == sorted(CATEGORIES)  # type: ignore[arg-type]
    assert all(b'"role":"system"' in bytes(ask.prompt) for ask, _ in engine.asked)


def test_openais_own_model_means_whoever_judges_here() -> None:
    with client_of(WatchedEngine(_judge), "chat") as client:
        found = client.moderations.create(input="I like the sea.", model="omni-moderation-latest")

    assert not found.results[0].flagged


def test_without_a_judge_it_says_what_to_set() -> None:
    with client_of(WatchedEngine()) as client, pytest.raises(openai.InternalServerError) as caught:
        client.moderations.create(input="x")

    assert (caught.value.status_code, caught.value.code) == (501, "not_supported")
    assert "moderation: true" in caught.value.message


def test_among_several_judges_one_is_named() -> None:
    with client_of(WatchedEngine(_judge), "chat", "strict") as client:
        with pytest.raises(openai.BadRequestError, match="chat, strict"):
            client.moderations.create(input="x")
        assert client.moderations.create(input="x", model="strict").model == "strict"


@pytest.mark.parametrize("said", ["I cannot judge that.", '{"hate": true}'])
def test_what_is_no_verdict_is_an_error(said: str) -> None:
    engine = WatchedEngine(words(said))
    with client_of(engine, "chat") as client, pytest.raises(openai.InternalServerError) as caught:
        client.moderations.create(input="x")

    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")


@pytest.mark.parametrize("given", [[], [3], "x\ud800"])
def test_an_input_that_is_none_is_refused(given: Any) -> None:
    refusals = (openai.BadRequestError, UnicodeEncodeError)
    with client_of(WatchedEngine(_judge), "chat") as client, pytest.raises(refusals):
        client.moderations.create(input=given)


@pytest.mark.engine
def test_the_how_to_works_with_the_real_model(smollm2_gguf: Path, tmp_path: Path) -> None:
    text = HOWTO.read_text()
    (endpoints,), (code,), (shown,) = [
        re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for kind in ("yaml", "python", "text")
    ]
    spec = (
        f'version: 1\nmodels: {{smollm2: {{source: "file:{smollm2_gguf}"}}}}\n'
        "deployments: {smollm2: {model: smollm2, engine_options: {context_tokens: 4096, slots: 2}}}\n"
    )
    out = StringIO()
    with program(tmp_path / "home", spec + endpoints) as running, redirect_stdout(out):
        code = code.replace("http://127.0.0.1:8420", running.url) + "client.close()\nfound = result\n"
        names: dict[str, Any] = {"KEY": running.admin_key}
        exec(code, names)  # noqa: S102 - the how-to's own block

    assert out.getvalue() == shown
    scores = [one.category_scores.to_dict() for one in names["found"]]
    assert all(0.0 <= score <= 1.0 for one in scores for score in one.values())
    assert any(0.0 < score < 1.0 for score in scores[1].values())  # of the model, not of its yes and no
