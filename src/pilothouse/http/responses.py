"""
`POST /v1/responses` at the worker: a request that goes on from an earlier response gets what was said before.

That is asked of the controller, in whose store the earlier response rests: the one
wait of the request path beside the engine, bounded, and only where a caller names
an earlier response.
"""

from collections.abc import Coroutine
from typing import Any
from urllib.parse import quote

import msgspec

from pilothouse.domain.answer_id import record_of
from pilothouse.domain.errors import (
    InvalidApiKey,
    InvalidRequest,
    PermissionDenied,
    PilothouseError,
    StoreUnavailable,
)
from pilothouse.gateway.pipeline import Pipeline
from pilothouse.gateway.state import GatewayState
from pilothouse.http.answering import send_error
from pilothouse.kit.http1.client import Client, HttpFailure, request_bytes
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.http1.responder import Responder
from pilothouse.wire.openai import messages
from pilothouse.wire.openai.messages import Message
from pilothouse.wire.responses.dialect import RESPONSES, Responses
from pilothouse.wire.responses.inbound import previous_of

CONVERSATION_BYTES = 8 * 1024 * 1024
_TIMEOUTS = Timeouts(connect_s=1.0, first_byte_s=10.0, idle_s=10.0)
_TOTAL_S = 20.0


class _Refused(msgspec.Struct):
    error: dict[str, Any]


class ResponsesRoutes:
    def __init__(self, state: GatewayState, pipeline: Pipeline, controller: Client) -> None:
        self._state = state
        self._pipeline = pipeline
        self._controller = controller

    def create(self, request: Request, responder: Responder) -> Coroutine[Any, Any, None]:
        previous = previous_of(request.body)
        if not previous:
            return self._pipeline.serve(request, responder, RESPONSES)
        return self._go_on(request, responder, previous)

    async def _go_on(self, request: Request, responder: Responder, previous: str) -> None:
        try:
            self._state.authenticator.authenticate(request.headers)  # a wrong key goes no further than here
            before = await self._said_until(request, previous)
        except PilothouseError as exc:
            send_error(responder, exc)
            return
        await self._pipeline.serve(request, responder, Responses(before))

    async def _said_until(self, request: Request, previous: str) -> list[Message]:
        if record_of(previous) is None:
            raise _unknown(f"{previous[:80]!r} is no id of a response")
        headers = b"".join(
            [
                b"%s: %s\r\n" % (name, request.headers[name])
                for name in (b"authorization", b"x-api-key")
                if name in request.headers
            ]
        )
        target = f"/v1/responses/{quote(previous, safe='')}/conversation"
        try:
            exchange = await self._controller.request(
                request_bytes("GET", target, "localhost", headers, b""), _TIMEOUTS, total_s=_TOTAL_S
            )
            try:
                body = await exchange.read_all(CONVERSATION_BYTES)
            finally:
                exchange.release()
        except HttpFailure as exc:
            raise StoreUnavailable(
                "the earlier response cannot be looked up: the controller does not answer", retry_after_s=2.0
            ) from exc
        if exchange.status == 200:
            said: list[Message] = messages.decode(body)
            return said
        raise _refusal(exchange.status, body)


def _refusal(status: int, body: bytes) -> PilothouseError:
    try:
        message = str(msgspec.json.decode(body, type=_Refused).error.get("message", ""))
    except msgspec.DecodeError:
        message = ""
    if status in (400, 404):
        return _unknown(message)
    if status == 401:
        return InvalidApiKey(message)
    if status == 403:
        return PermissionDenied(message)
    return StoreUnavailable("the earlier response cannot be looked up now", retry_after_s=2.0)


def _unknown(why: str) -> InvalidRequest:
    return InvalidRequest(f"previous_response_id: {why}", param="previous_response_id")
