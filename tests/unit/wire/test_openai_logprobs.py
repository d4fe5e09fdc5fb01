"""Log probabilities in the form that completions have, and many pieces as one."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from openai.types.completion_choice import Logprobs

from pilothouse.domain.errors import UpstreamError
from pilothouse.wire.openai.logprobs import Token, joined, lists_of, read_steps

TOKENS = st.lists(st.builds(Token, st.text(max_size=4), st.floats(-50, 0)), min_size=1, max_size=12)


def lists(raw: Raw | None) -> dict[str, Any]:
    assert raw is not None
    found: dict[str, Any] = json.loads(bytes(raw))
    return found


def test_the_token_that_was_taken_is_among_the_likeliest() -> None:
    step = Token(" Rome", -3.0, [Token(" Paris", -0.2), Token(" the", -2.0)])

    raw, end = lists_of([step], top=1, offset=4)

    assert lists(raw) == {
        "tokens": [" Rome"],
        "token_logprobs": [-3.0],
        "top_logprobs": [{" Rome": -3.0, " Paris": -0.2}],
        "text_offset": [4],
    }
    assert end == 9


def test_without_likeliest_ones_there_is_no_list_of_them() -> None:
    raw, _ = lists_of([Token("a", -1.0, [Token("b", -0.5)])], top=0, offset=0)

    assert lists(raw)["top_logprobs"] is None


@settings(deadline=None)
@given(steps=TOKENS, data=st.data())
def test_pieces_joined_are_as_if_they_had_come_at_once(steps: list[Token], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(steps)))
    first, middle = lists_of(steps[:cut], top=2, offset=0)
    second, end = lists_of(steps[cut:], top=2, offset=middle)

    whole, whole_end = lists_of(steps, top=2, offset=0)

    assert lists(joined([first, second])) == lists(whole)
    assert end == whole_end
    Logprobs.model_validate_json(bytes(whole))


def test_pieces_of_chats_are_joined_step_by_step() -> None:
    parts = [Raw(b'{"content":[{"token":"a","x":1}]}'), Raw(b'{"content":[{"token":"b"}]}')]

    assert lists(joined(parts)) == {"content": [{"token": "a", "x": 1}, {"token": "b"}]}


@pytest.mark.parametrize("raw", [b"[]", b"3", b'{"content":3}'])
def test_nonsense_of_an_engine_is_its_error(raw: bytes) -> None:
    with pytest.raises(UpstreamError):
        joined([Raw(raw), Raw(raw)])


def test_so_it_is_of_steps() -> None:
    with pytest.raises(UpstreamError):
        read_steps(Raw(b'{"content":[{}]}'))
