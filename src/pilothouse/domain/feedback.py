"""
Feedback: what somebody thought of an answer, as it is kept. Never overwritten, only added to.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from pilothouse.domain.answer_id import record_of
from pilothouse.domain.errors import InvalidRequest

FeedbackKind = Literal["bool", "float", "comment", "correction", "demonstration", "preference"]
FeedbackState = Literal["new", "counted", "lost"]
"""`lost`: its record never came, for none was kept."""

_NAME_CHARS = 64
_TEXT_CHARS = 100_000
_KEY_CHARS = 256


class FeedbackWish(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/feedback`."""

    id: str
    """The answer's id, or its `x-request-id`."""
    name: str
    """What was rated, such as `thumbs`."""
    value: Any | UnsetType = UNSET
    """true or false, a number in 0..1, or a text."""
    kind: FeedbackKind | None = None
    subject: str | None = None
    """Who gave it, if somebody did."""
    idempotency_key: str | None = None
    """The same key again is the same feedback."""


class Feedback(Struct, frozen=True, kw_only=True):
    id: str
    team: str
    record_id: str
    name: str
    kind: FeedbackKind
    value: float | None = None
    """0..1 of `bool` and `float`; texts rest sealed."""
    key_id: str = ""
    subject_hash: str = ""
    time: float = 0.0
    idempotency_key: str | None = None
    state: FeedbackState = "new"
    sealing_key: str = ""
    sealed: bytes | None = None


class Rating(Struct, frozen=True, kw_only=True):
    """A wish that was understood."""

    record_id: str
    name: str
    kind: FeedbackKind
    value: float | None
    text: str | None


def read_wish(wish: FeedbackWish) -> Rating:
    """
    Raises:
        InvalidRequest: A field is not what it should be.
    """
    record_id = record_of(wish.id)
    if record_id is None:
        raise InvalidRequest(
            f"id: {wish.id[:64]!r} is not the id of an answer; send the `id` of the answer, "
            "such as chatcmpl-..., or its x-request-id",
            param="id",
        )
    name = wish.name.strip()
    if not 0 < len(name) <= _NAME_CHARS or not name.isprintable():
        raise InvalidRequest(f"name: 1 to {_NAME_CHARS} printable characters, such as thumbs", param="name")
    if wish.idempotency_key is not None and not 0 < len(wish.idempotency_key) <= _KEY_CHARS:
        raise InvalidRequest(f"idempotency_key: 1 to {_KEY_CHARS} characters", param="idempotency_key")
    kind, value, text = _read_value(wish)
    return Rating(record_id=record_id, name=name, kind=kind, value=value, text=text)


def _read_value(wish: FeedbackWish) -> tuple[FeedbackKind, float | None, str | None]:
    value, kind = wish.value, wish.kind
    if isinstance(value, bool) and kind in (None, "bool"):
        return "bool", float(value), None
    if isinstance(value, int | float) and not isinstance(value, bool) and kind in (None, "float"):
        if 0 <= value <= 1:
            return "float", float(value), None
        raise InvalidRequest(f"value: {value} is not within 0..1", param="value")
    if isinstance(value, str) and kind not in ("bool", "float"):
        if 0 < len(value) <= _TEXT_CHARS:
            return kind or "comment", None, value
        raise InvalidRequest(f"value: a text has 1 to {_TEXT_CHARS} characters", param="value")
    raise InvalidRequest(
        "value: true or false, a number in 0..1, or a text"
        + (f"; for kind {kind} another than was sent" if kind else ""),
        param="value",
    )
