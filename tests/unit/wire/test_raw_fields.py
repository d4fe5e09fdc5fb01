"""Fields that are carried as they came, and their null, which means absent."""

import json

import pytest

from pilothouse.domain.errors import UpstreamError
from pilothouse.wire.openai.inbound import read_chat
from pilothouse.wire.openai.outbound import RequestWriter, read_said

SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}


def asked(**more: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **more}).encode()


@pytest.mark.parametrize("wanted", [{"type": "text"}, {"type": "json_object"}, SCHEMA])
def test_a_response_format_reaches_the_engine_as_it_came(wanted: dict[str, object]) -> None:
    sent = json.loads(
        b"".join(RequestWriter("m").write(read_chat(asked(response_format=wanted)), stream=False))
    )

    assert sent["response_format"] == wanted


def test_a_response_format_of_null_is_none() -> None:
    sent = json.loads(
        b"".join(RequestWriter("m").write(read_chat(asked(response_format=None)), stream=False))
    )

    assert "response_format" not in sent


@pytest.mark.parametrize("whole", [True, False])
def test_log_probabilities_come_back_as_they_were(whole: bool) -> None:
    steps = {"content": [{"token": "a", "logprob": -0.5}]}
    text = {"message" if whole else "delta": {"content": "a"}}

    (delta,) = read_said(json.dumps({"choices": [{**text, "logprobs": steps}]}).encode()).deltas

    assert delta.logprobs is not None
    assert json.loads(bytes(delta.logprobs)) == steps


def test_log_probabilities_of_null_are_none() -> None:
    (delta,) = read_said(b'{"choices":[{"delta":{"content":"a"},"logprobs":null}]}').deltas

    assert delta.logprobs is None


def test_an_error_of_null_is_none() -> None:
    assert read_said(b'{"choices":[],"error":null}').deltas == ()


@pytest.mark.parametrize("error", [b'{"message":"x"}', b'"x"', b"7", b"{}", b"[]"])
def test_an_error_of_any_shape_is_one(error: bytes) -> None:
    with pytest.raises(UpstreamError, match="broke off"):
        read_said(b'{"choices":[],"error":%s}' % error)
