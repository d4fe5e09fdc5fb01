import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.duration import LONGEST_S, parse_duration_s
from pilothouse.domain.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 2_592_000), ("12h", 43_200), ("90s", 90), ("1.5m", 90), ("250ms", 0.25), ("1w", 604_800)],
)
def test_a_number_with_a_unit_is_its_seconds(text: str, seconds: float):
    assert parse_duration_s(text, param="expires") == seconds


def test_never_is_no_end():
    assert parse_duration_s("never", param="expires") is None


@pytest.mark.parametrize(
    "text",
    ["", "30", "d", "-1d", "0d", "1 d", "1d ", "1D", "1e9d", "٣d", "999999999w", "1d\n", "\x00", "nan"],
)
def test_anything_else_is_refused_with_examples(text: str):
    with pytest.raises(InvalidRequest, match="such as 30d or 12h") as caught:
        parse_duration_s(text, param="expires")

    assert caught.value.param == "expires"


def test_the_message_does_not_echo_a_huge_value():
    with pytest.raises(InvalidRequest) as caught:
        parse_duration_s("x" * 1_000_000, param="expires")

    assert len(caught.value.message) < 300


@given(st.text())
def test_every_text_is_a_positive_duration_or_refused(text: str):
    try:
        value = parse_duration_s(text, param="expires")
    except InvalidRequest:
        return

    assert value is None or 0 < value <= LONGEST_S
