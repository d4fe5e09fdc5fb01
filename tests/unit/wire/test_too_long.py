import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.wire.openai.too_long import TooLong, too_long

LIMIT = "This model's maximum context length is 1024 tokens. However, your "


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (LIMIT + "prompt contains 8000 characters (more than 5120", TooLong(8000, "characters", 1024)),
        (LIMIT + "prompt contains at least 1025 input tokens, which", TooLong(1025, "tokens", 1024)),
        (LIMIT + "messages resulted in 5000 tokens.", TooLong(5000, "tokens", 1024)),
        (
            "The decoder prompt (length 1100) is longer than the maximum model length of 1024. Make",
            TooLong(1100, "tokens", 1024),
        ),
        ("Input length (1100) exceeds model's maximum context length (1024).", TooLong(1100, "tokens", 1024)),
        (
            "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
            TooLong(5000, "tokens", 4096),
        ),
        ("Requested token count exceeds the model's maximum context length of 4096 tokens.", None),
        ("temperature must be non-negative, got -1", None),
    ],
)
def test_the_counts_of_a_refusal_are_read(message: str, found: TooLong | None) -> None:
    assert too_long(message) == found


@given(st.text(max_size=200))
def test_other_words_are_about_something_else(message: str) -> None:
    assert too_long(message) is None or "(" in message or "maximum" in message
