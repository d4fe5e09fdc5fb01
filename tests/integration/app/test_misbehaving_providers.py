"""What goes wrong at a provider, in every protocol: a typed error in the caller's words, and its record."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from client_rig import wait_until
from http1_rig import Answer
from misbehaving_upstream import SMILE, misbehaving_upstream
from program_rig import Program, program
from protocol_ways import WAYS, Way

SPEC = """
version: 1
deployments:
  wrong: {{provider_model: m, engine: openai,
    engine_options: {{base_url: "http://127.0.0.1:{port}/v1", allow_private_network: true}}}}
endpoints:
  chat: {{routes: [{{deployment: wrong}}], retries: {{max: 0}}}}
"""
BODY_BYTES = 16 * 1024 * 1024
TOOL_RESULT = "r" * (10 * 1024 * 1024)


@dataclass(frozen=True)
class Case:
    """What is asked for, and what is said of it: the code, or "ok" and the text."""

    kind: str
    whole: str = "upstream_error"
    stream: str = "upstream_error"
    text: str = ""
    but: dict[str, str] = field(default_factory=dict)
    """The code in protocols in which that cannot be told."""

    def code(self, way: Way, *, stream: bool) -> str:
        return self.but.get(way.name, self.stream if stream else self.whole)


CASES = [
    Case("good", "ok", "ok", "Yes."),
    Case("half an event"),
    Case("no end"),
    Case("text behind the end", whole="ok", text="Yes."),
    Case("a call that never began"),
    Case("two calls of one id"),
    Case(
        "arguments that are no JSON",
        "ok",
        "ok",
        but={"anthropic": "upstream_error", "ollama": "upstream_error"},
    ),
    Case("no usage", "ok", "ok", "Yes."),
    Case("usage below zero"),
    Case("usage without end"),
    Case("an error in a good answer"),
    Case("an error behind some text"),
    Case("a page of a proxy"),
    Case("nothing"),
    Case("half a character"),
    Case("a split character", "ok", "ok", SMILE),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    home = tmp_path_factory.mktemp("wrong") / "home"
    with (
        misbehaving_upstream() as port,
        program(home, SPEC.format(port=port), "--set", f"max_body_bytes={BODY_BYTES}") as started,
    ):
        yield started


@contextmanager
def talk(running: Program) -> Iterator[http.client.HTTPConnection]:
    where = urlsplit(running.url)
    made = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    try:
        yield made
    finally:
        made.close()


def call(running: Program, method: str, path: str, body: Any = None) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {running.admin_key}", "content-type": "application/json"}
    with talk(running) as made:
        made.request(method, path, data, headers)
        answer = made.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def record_of(running: Program, answer: Answer) -> dict[str, Any]:
    """As soon as it came from the journal."""
    found: dict[str, Any] = {}

    def is_there() -> bool:
        seen = call(running, "GET", f"/admin/v1/records/{answer.headers['x-request-id']}?content=true")
        if seen.status == 200:
            found.update(json.loads(seen.body))
        return seen.status == 200

    wait_until(is_there, what="the record", within_s=20)
    return found


def saying(way: Way, text: str, *, stream: bool = False, tool: bool = False) -> dict[str, Any]:
    body = way.body(stream, tool)
    said = body["input" if way.name == "responses" else "messages"]
    return {
        **body,
        ("input" if way.name == "responses" else "messages"): [*said[:-1], {"role": "user", "content": text}],
    }


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind.replace(" ", "-"))
def test_it_is_told_in_the_callers_protocol_and_on_record(
    case: Case, way: Way, running: Program, *, stream: bool
) -> None:
    answer = call(running, "POST", way.path, saying(way, case.kind, stream=stream, tool="call" in case.kind))
    for _ in range(2):  # so that more goes well than wrong, and the provider stays in use
        assert call(running, "POST", way.path, saying(way, "good")).status == 200

    code = case.code(way, stream=stream)
    record = record_of(running, answer)
    assert record["code"] == code
    assert b"sk-secret" not in answer.body
    if code != "ok":
        assert code.encode() in answer.body
        if answer.status == 200:  # it had begun
            assert stream
            assert way.ends_well not in answer.body
        else:
            assert way.error(json.loads(answer.body))["code"] == code
        return
    assert answer.status == 200
    if case.text:
        said = way.streamed(answer) if stream else way.text(json.loads(answer.body))
        assert said == case.text
        assert record["content"]["answers"] == [case.text]
    assert record["tokens"]["output"] > 0
    if stream:
        assert way.ends_well in answer.body


NEVER = {"type": "object", "not": {}}


def formed(way: Way, *, stream: bool) -> dict[str, Any]:
    """Asks for an answer in a form that nothing has."""
    body = saying(way, "good", stream=stream)
    schema = {"type": "json_schema", "schema": NEVER}
    named = {"name": "never", "schema": NEVER}
    return (
        body
        | {
            "openai": {"response_format": {"type": "json_schema", "json_schema": named}},
            "responses": {"text": {"format": {"type": "json_schema", **named}}},
            "anthropic": {"output_config": {"format": schema}},
            "ollama": {"format": NEVER},
        }[way.name]
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_form_that_no_model_can_meet_is_no_good_answer(way: Way, running: Program, *, stream: bool) -> None:
    answer = call(running, "POST", way.path, formed(way, stream=stream))

    assert b"upstream_error" in answer.body
    assert way.ends_well not in answer.body
    assert b"not in the form" in answer.body
    assert record_of(running, answer)["code"] == "upstream_error"


def with_result(way: Way, result: str) -> dict[str, Any]:
    """A conversation in which a tool gave that."""
    body = saying(way, "good", tool=True)
    if way.name == "responses":
        asked = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
        body["input"] += [asked, {"type": "function_call_output", "call_id": "c1", "output": result}]
    elif way.name == "anthropic":
        use = {"type": "tool_use", "id": "c1", "name": "look", "input": {}}
        given = {"type": "tool_result", "tool_use_id": "c1", "content": result}
        body["messages"] += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [given]}]
    elif way.name == "ollama":
        calls = [{"function": {"name": "look", "arguments": {}}}]
        body["messages"] += [
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "content": result, "tool_name": "look"},
        ]
    else:
        calls = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
        body["messages"] += [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": result, "tool_call_id": "c1"},
        ]
    return body


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_ten_megabytes_of_a_tool_go_through_where_bodies_may_be_so_large(way: Way, running: Program) -> None:
    answer = call(running, "POST", way.path, with_result(way, TOOL_RESULT))

    assert answer.status == 200
    assert way.text(json.loads(answer.body)) == "Yes."
    assert TOOL_RESULT in json.dumps(record_of(running, answer)["content"]["request"])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_larger_body_is_refused_in_the_callers_protocol(way: Way, running: Program) -> None:
    answer = call(running, "POST", way.path, with_result(way, TOOL_RESULT * 2))

    assert answer.status == 413
    assert way.error(json.loads(answer.body))["code"] == "request_too_large"
