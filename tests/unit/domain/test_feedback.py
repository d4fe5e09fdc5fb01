from typing import Any

import pytest

from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.feedback import FeedbackWish, Rating, read_wish

ID = "chatcmpl-" + "a" * 32


def wish(value: Any = True, **changes: Any) -> FeedbackWish:
    return FeedbackWish(**{"id": ID, "name": "thumbs", "value": value, **changes})


@pytest.mark.parametrize(
    ("given", "kind", "value", "text"),
    [
        (wish(True), "bool", 1.0, None),
        (wish(False), "bool", 0.0, None),
        (wish(0.7), "float", 0.7, None),
        (wish(1), "float", 1.0, None),
        (wish("too long"), "comment", None, "too long"),
        (wish("better", kind="correction"), "correction", None, "better"),
    ],
)
def test_a_value_says_what_kind_it_is(given, kind, value, text):
    assert read_wish(given) == Rating(
        record_id="req_" + "a" * 32, name="thumbs", kind=kind, value=value, text=text
    )


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (wish(id="abc"), "id"),
        (wish(name=""), "name"),
        (wish(name="a\nb"), "name"),
        (wish(name="x" * 65), "name"),
        (wish(7), "value"),
        (wish(-0.1), "value"),
        (wish(float("nan")), "value"),
        (wish(""), "value"),
        (wish(None), "value"),
        (wish([1]), "value"),
        (wish("text", kind="bool"), "value"),
        (wish(True, kind="float"), "value"),
        (wish(0.5, kind="comment"), "value"),
        (wish(idempotency_key=""), "idempotency_key"),
        (FeedbackWish(id=ID, name="thumbs"), "value"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused_by_its_field(given, param):
    with pytest.raises(InvalidRequest) as refused:
        read_wish(given)

    assert refused.value.param == param
