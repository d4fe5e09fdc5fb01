"""
Responses that were kept: shown, gone on from, deleted. They are records, opened from their team's seal.

A key opens what it asked itself; all else is a record's content, which few may read.
A response may be asked for before its record has come from the worker's journal: one
whose id is signed for the asker's team is waited for, within a bound.
"""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, delete, get
from litestar.params import QueryParameter
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from pilothouse.domain.answer_id import record_of
from pilothouse.domain.chat import Aside
from pilothouse.domain.chunk import Delta
from pilothouse.domain.errors import InvalidRequest, NotFound
from pilothouse.domain.policy import Deny
from pilothouse.domain.record import Content, InferenceRecord
from pilothouse.domain.used_tokens import Usage
from pilothouse.http.access import Asked, needs
from pilothouse.http.errors import request_id_of
from pilothouse.http.paging import Id, Limit
from pilothouse.http.plane import Plane, plane_of
from pilothouse.ports.store import SealedRecord
from pilothouse.wire.openai import messages
from pilothouse.wire.openai.messages import Message
from pilothouse.wire.responses import answers, inbound

WAIT_S = 3.0
"""For a record that is still on its way from the journal to the store."""
_ROUND_S = 0.05
MOST_TURNS = 200
"""Of one conversation: a longer one is begun anew, with what matters of it in its input."""
MOST_BYTES = 8 * 1024 * 1024


class Deleted(Struct, frozen=True, kw_only=True):
    id: str
    object: str = "response"
    deleted: bool = True


class ItemList(Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


@get("/v1/responses/{response_id:str}", opt=needs("invoke"), include_in_schema=False)
async def show_response(request: Asked, response_id: Id) -> Response[dict[str, Any]]:
    """As it was answered, while its content is kept."""
    record, content = await _open(request, response_id)
    return Response(_written(response_id, record, content))


@get("/v1/responses/{response_id:str}/input_items", opt=needs("invoke"), include_in_schema=False)
async def list_input_items(
    request: Asked,
    response_id: Id,
    limit: Limit = 20,
    order: Annotated[
        Literal["asc", "desc"], QueryParameter(description="By place.", required=False)
    ] = "desc",
    after: Annotated[str | None, QueryParameter(description="Id of an item.", required=False)] = None,
) -> ItemList:
    """The items that its request had, by default the last one first."""
    _, content = await _open(request, response_id)
    key = response_id.removeprefix("resp_")
    items = [
        {**item, "id": item.get("id") or f"item_{key}_{place}"}
        for place, item in enumerate(inbound.input_of(content.request))
    ]
    if order == "desc":
        items.reverse()
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise InvalidRequest(f"after: no item {after[:80]!r} in this response", param="after")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    return ItemList(
        data=page,
        first_id=page[0]["id"] if page else None,
        last_id=page[-1]["id"] if page else None,
        has_more=len(items) > limit,
    )


@get("/v1/responses/{response_id:str}/conversation", opt=needs("invoke"), include_in_schema=False)
async def conversation(request: Asked, response_id: Id) -> Response[list[Message]]:
    """All that was said until that response and in it: for workers, which go on from there."""
    turns: list[list[Message]] = []
    size, following = 0, response_id
    while following:
        record, content = await _open(request, following)
        if record.code != "ok":
            raise InvalidRequest(f"response {following[:80]} failed; go on from one that was answered")
        size += len(content.request) + sum(map(len, content.answers))
        if len(turns) >= MOST_TURNS or size > MOST_BYTES:
            raise InvalidRequest(
                f"the conversation is over {MOST_TURNS} turns or {MOST_BYTES >> 20} MiB; begin a new one"
            )
        _, said = inbound.shown(content.request)
        turns.append([*said, *_said(content)])
        following = inbound.previous_of(content.request)
    return Response([message for turn in reversed(turns) for message in turn])


@delete("/v1/responses/{response_id:str}", opt=needs("invoke"), status_code=200, include_in_schema=False)
async def delete_response(request: Asked, response_id: Id) -> Deleted:
    """Its content is erased at once; the facts of the request stay, as an audit needs them."""
    record, _ = await _open(request, response_id)
    plane = plane_of(request)
    await plane.transact(lambda unit: unit.records.forget_content_of(record.id))
    plane.log.event(
        "response_deleted",
        request_id=request_id_of(request.scope),
        by_key=request.user.key_id,
        record=record.id,
    )
    return Deleted(id=response_id)


async def _open(request: Asked, response_id: str) -> tuple[InferenceRecord, Content]:
    plane = plane_of(request)
    missing = f"no response {response_id[:80]!r}: it was never stored, was deleted, or is another key's"
    record_id = record_of(response_id)
    if record_id is None or not response_id.startswith("resp_"):
        raise NotFound(missing)
    sealed = await _sealed(plane, request.user.team, record_id)
    if sealed is None or sealed.content is None or not _may_open(request, sealed.record):
        raise NotFound(missing)
    content = await plane.open_content(sealed)
    if content.protocol != "responses":
        raise NotFound(missing)
    return sealed.record, content


async def _sealed(plane: Plane, team: str, record_id: str) -> SealedRecord | None:
    """Waited for where it is sure to come: None where it never was."""
    ends = plane.clock.monotonic() + (WAIT_S if plane.feedback.is_answer_of(team, record_id) else 0.0)
    while True:
        try:
            return await plane.transact(lambda unit: unit.records.content(record_id))
        except NotFound:
            if plane.clock.monotonic() >= ends:
                return None
        plane.hurry_records()
        await asyncio.sleep(_ROUND_S)


def _may_open(request: Asked, record: InferenceRecord) -> bool:
    """Whoever lists records knows their ids, so that an id alone opens nothing."""
    if record.key_id == request.user.key_id:
        return True
    plane = plane_of(request)
    if isinstance(plane.policy(request.user, "records.content", record.team), Deny):
        return False
    plane.log.event(
        "record_content_opened",
        request_id=request_id_of(request.scope),
        by_key=request.user.key_id,
        by_team=request.user.team,
        records=[record.id],
    )
    return True


def _said(content: Content) -> list[Message]:
    """The answer as a message of the assistant; nothing where it was empty."""
    text = content.answers[0] if content.answers else ""
    aside = content.asides[0] if content.asides else Aside()
    calls = [messages.Call(call.id, messages.Function(call.name, call.arguments)) for call in aside.tools]
    if not (text or calls or aside.refusal):
        return []
    return [
        messages.Assistant(
            content=text or None,
            refusal=aside.refusal or None,
            tool_calls=calls or None,
            reasoning_content=aside.reasoning or None,
        )
    ]


def _written(response_id: str, record: InferenceRecord, content: Content) -> dict[str, Any]:
    asked, _ = inbound.shown(content.request)
    delta = Delta(
        content.answers[0] if content.answers else "",
        finish_reason=record.finish_reason or None,
        aside=content.asides[0] if content.asides else None,
    )
    whole = answers.write_whole(
        asked,
        delta,
        Usage(record.input_tokens, record.output_tokens, record.cached_tokens),
        answer_id=response_id,
        created=int(record.time),
    )
    response: dict[str, Any] = msgspec.json.decode(whole)
    if record.code != "ok":
        response |= {"status": "failed", "error": {"code": "server_error", "message": record.code}}
    return response


ROUTES: list[ControllerRouterHandler] = [show_response, list_input_items, conversation, delete_response]
"""Beside the admin API: what callers of models use."""
