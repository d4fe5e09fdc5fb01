"""Feedback: taken from those who call models, and listed for those who look after them."""

from litestar import get, post
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from pilothouse.domain.errors import NotFound
from pilothouse.domain.feedback import Feedback, FeedbackKind, FeedbackState, FeedbackWish
from pilothouse.http.access import Asked, allow, needs, team_filter
from pilothouse.http.errors import request_id_of
from pilothouse.http.paging import Flag, Limit, Word
from pilothouse.http.plane import Plane, plane_of
from pilothouse.http.views import Items


class FeedbackReceipt(Struct, frozen=True, kw_only=True):
    feedback_id: str
    record_id: str


class FeedbackView(Struct, frozen=True, kw_only=True):
    id: str
    record_id: str
    team: str
    name: str
    kind: FeedbackKind
    value: float | None
    """0..1; null where it is a text."""
    text: str | None
    """Only when asked for and allowed."""
    key_id: str
    subject_hash: str
    time: float
    state: FeedbackState
    """`new` until its record is in the store and it was weighed; `lost` when no record came."""


@post("/v1/feedback", opt=needs("feedback.write"), status_code=202, include_in_schema=False)
async def give_feedback(request: Asked, data: JSONBody[FeedbackWish]) -> FeedbackReceipt:
    """What somebody thought of an answer; the same `idempotency_key` again is the same feedback."""
    kept = await plane_of(request).feedback.accept(data, request.user)
    return FeedbackReceipt(feedback_id=kept.id, record_id=kept.record_id)


@get("/feedback", opt=needs("records.read"))
async def list_feedback(
    request: Asked, team: Word = None, record: Word = None, limit: Limit = 100, *, content: Flag = False
) -> Items[FeedbackView]:
    """Newest first. With `content=true` texts are opened, for roles that may read prompts."""
    plane = plane_of(request)
    about = team_filter(request, "records.read", team)
    if content:
        allow(plane.policy(request.user, "records.content", about))
    found = await plane.transact(lambda unit: unit.feedback.page(team=about, record_id=record, limit=limit))
    if content and found:
        plane.log.event(
            "feedback_opened",
            request_id=request_id_of(request.scope),
            by_key=request.user.key_id,
            feedback=[one.id for one in found],
        )
    return Items([_view(one, await _text(plane, one) if content else None) for one in found])


async def _text(plane: Plane, feedback: Feedback) -> str | None:
    """None where it has none, or where it was erased."""
    if feedback.sealed is None:
        return None
    try:
        return await plane.open_feedback(feedback)
    except NotFound:
        return None


def _view(feedback: Feedback, text: str | None) -> FeedbackView:
    return FeedbackView(
        id=feedback.id,
        record_id=feedback.record_id,
        team=feedback.team,
        name=feedback.name,
        kind=feedback.kind,
        value=feedback.value,
        text=text,
        key_id=feedback.key_id,
        subject_hash=feedback.subject_hash,
        time=feedback.time,
        state=feedback.state,
    )


ROUTES: list[ControllerRouterHandler] = [list_feedback]
PUBLIC_ROUTES: list[ControllerRouterHandler] = [give_feedback]
"""Beside the admin API: what callers of models use."""
