"""A tool that must be called: its schema becomes the form of the answer, and the answer the call."""

import json
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain.chat import Aside
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.gateway.generate import Gathered
from pilothouse.wire.openai.dialect import CHAT
from pilothouse.wire.openai.forced import CallReader, forced_call

PLACE = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}


def ask(choice: Any, *names: str, **more: Any) -> GenerateRequest:
    offers = [{"type": "function", "function": {"name": name, "parameters": PLACE}} for name in names]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": offers, **more}
    return CHAT.read(json.dumps(body | {"tool_choice": choice}).encode())


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def form_of(request: GenerateRequest) -> Any:
    return msgspec.json.decode(request.sampling.response_format)["json_schema"]["schema"]


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_free_choice_is_left_as_it_is(choice: str) -> None:
    assert forced_call(ask(choice, "look")) is None


@pytest.mark.parametrize(
    ("request_", "only"),
    [
        (ask(named("look"), "look", "hear"), "look"),
        (ask("required", "look"), "look"),
        (ask("required", "look", "hear"), ""),
    ],
)
def test_the_form_is_the_tools_own_or_a_choice_of_them(request_: GenerateRequest, only: str) -> None:
    forced = forced_call(request_)

    assert forced is not None
    assert forced.only == only
    form = form_of(forced.request)
    if only:
        assert form == PLACE
    else:
        assert [one["properties"]["name"]["const"] for one in form["anyOf"]] == ["look", "hear"]
        assert all(one["properties"]["arguments"] == PLACE for one in form["anyOf"])
    assert (forced.request.sampling.tools, forced.request.sampling.tool_choice) == (None, None)
    told = msgspec.json.decode(forced.request.prompt)
    assert [message["role"] for message in told] == ["system", "user"]
    assert '"look"' in told[0]["content"]
    assert ('"hear"' in told[0]["content"]) == (only == "")


def test_a_system_that_is_there_is_told_in_its_own_message() -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    forced = forced_call(ask("required", "look", messages=said))

    assert forced is not None
    told = msgspec.json.decode(forced.request.prompt)
    assert [message["role"] for message in told] == ["system", "user"]
    assert told[0]["content"].startswith("Be brief.\n\nCall the function look")


def called(only: str, texts: list[str], finish: str = "stop") -> Delta:
    numbers = count()
    reader, gathered = CallReader(only, lambda: f"call_{next(numbers)}"), Gathered(1)
    for text in texts:
        gathered.add(reader.read(Chunk((Delta(text),))))
    gathered.add(reader.read(Chunk((Delta("", 0, finish),))))
    (delta,) = gathered.deltas(unnamed=None)
    return delta


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [*pieces, text]


ARGUMENTS = st.dictionaries(st.text(max_size=6), st.text(max_size=6) | st.just({"a": {}}), max_size=3)
SIZES = st.lists(st.integers(1, 9), max_size=8)


@settings(deadline=None)
@given(arguments=ARGUMENTS, sizes=SIZES, is_free=st.booleans(), space=st.sampled_from(["", " ", "\n"]))
def test_what_is_said_in_the_form_is_the_call_however_it_is_cut(
    arguments: dict[str, Any], sizes: list[int], is_free: bool, space: str
) -> None:
    text = json.dumps(arguments, ensure_ascii=False)
    if is_free:
        text = f'{{{space}"name":{space}"look",{space}"arguments":{space}{text}{space}}}{space}'

    delta = called("" if is_free else "look", cut(text, sizes))

    assert (delta.text, delta.finish_reason) == ("", "tool_calls")
    assert delta.aside is not None
    (call,) = delta.aside.tools
    assert (call.id, call.name, json.loads(call.arguments)) == ("call_0", "look", arguments)


@pytest.mark.parametrize("texts", [[], ["No."], ['{"at":'], ['{"name": "look"}']])
@pytest.mark.parametrize("only", ["look", ""])
def test_an_answer_that_is_no_call_is_the_engines_fault(only: str, texts: list[str]) -> None:
    if only and texts == ['{"name": "look"}']:
        return  # arguments like any other
    with pytest.raises(UpstreamError):
        called(only, texts)


def test_a_call_that_was_cut_is_told_as_cut() -> None:
    delta = called("look", ['{"at": "s'], "length")

    assert delta.finish_reason == "length"
    assert delta.aside is not None
    assert delta.aside.tools[0].arguments == '{"at": "s'


def test_what_was_thought_before_stays() -> None:
    reader = CallReader("look", lambda: "c")

    (delta,) = reader.read(Chunk((Delta("", 0, None, None, Aside("Hmm.")),))).deltas

    assert delta.aside == Aside("Hmm.")
