"""
The request path, from bytes to bytes, in the order it happens.

    authenticate -> parse -> admit -> choose -> recall -> (permit -> generate -> deliver) -> keep

What is in parentheses may be tried more than once: see `attempt`.

A failure anywhere becomes one typed error in the caller's protocol. A caller
who hangs up cancels what runs, and the record is kept all the same.
"""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from pilothouse.domain.answer_id import PREFIX
from pilothouse.domain.errors import Internal, PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.ledger import Shortage
from pilothouse.gateway import admit
from pilothouse.gateway.attempt import Attempts
from pilothouse.gateway.call import AnyDialect, Call
from pilothouse.gateway.caller import caller_of
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.limit import Limiter
from pilothouse.gateway.meter import Meters
from pilothouse.gateway.recall import Recall
from pilothouse.gateway.shadow import Shadows
from pilothouse.gateway.state import GatewayState
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.kit.ids import new_id
from pilothouse.kit.log import Log
from pilothouse.wire.dialect import JSON
from pilothouse.wire.openai import answers, formats

Handler = Callable[[Request, Responder], Coroutine[Any, Any, None]]


class Pipeline:
    """Answers the routes that reach an engine, each in its dialect."""

    def __init__(
        self,
        state: GatewayState,
        keeper: Keeper,
        meters: Meters,
        log: Log,
        recall: Recall,
        limiter: Limiter,
    ) -> None:
        self._recall = recall
        self._state = state
        self._keeper = keeper
        self._meters = meters
        self._attempts = Attempts(keeper, meters, Random().random, recall)  # noqa: S311 - a choice, no secret
        self._log = log
        self.shadows = Shadows(keeper, meters, log)
        self._limiter = limiter

    def serving(self, dialect: AnyDialect) -> Handler:
        """The handler of a route."""

        def handle(request: Request, responder: Responder) -> Coroutine[Any, Any, None]:
            return self._run(Call(request, responder, dialect))

        return handle

    def serve(self, request: Request, responder: Responder, dialect: AnyDialect) -> Coroutine[Any, Any, None]:
        """Answer one request; for a route whose dialect depends on the request."""
        return self._run(Call(request, responder, dialect))

    async def _run(self, call: Call) -> None:
        failed: PilothouseError | None = None
        try:
            shortage = self._admit(call)
            if shortage is not None:
                await self._limiter.more(shortage, call)
            await self._attempts.answer(call)
        except PilothouseError as exc:
            failed = exc
        except asyncio.CancelledError:
            call.code = "client_closed"
            if call.flight is not None:
                self._recall.give_up(call.flight, None)
            self._keeper.keep_soon(call)
            raise
        except Exception as exc:  # noqa: BLE001 - one request's defect must not end the worker, nor go unrecorded
            self._log.failure("request_defect", exc, request_id=_named(call))
            failed = Internal("an internal error; the server's log has the request id")
        if failed is not None:
            # Not where it is caught: a compiled coroutine that waits there leaves its error to all others.
            try:
                await self._fail(call, failed)
            finally:
                failed = None  # an error holds frames, and must not be held by one of them
        if call.routes is not None and call.routes.shadow is not None:
            self.shadows.copy(call, call.routes, call.routes.shadow)

    def _admit(self, call: Call) -> Shortage | None:
        """
        Everything before a deployment is chosen; nothing here waits.

        Returns:
            What the limits are short of, which may be waited for.

        Raises:
            PilothouseError: The caller is not known, asks for nothing that is valid, or may not have it.
        """
        request, state = call.request, self._state
        caller = caller_of(request, state.authenticator, self._keeper)
        call.principal = principal = caller.principal
        self._keeper.name(call, principal.team)
        call.ask = ask = call.dialect.read(request.body)
        if isinstance(ask, GenerateRequest):
            call.text = ask
        call.routes = routes = admit.routes_for(state.routes, principal, ask.endpoint, call.kind)
        if caller.priority:
            call.priority = admit.priority_of(caller.priority, principal)
        if (text := call.text) is not None:
            if text.store is not None:
                call.is_unstored = admit.is_unstored(text.store, routes)
            call.has_form = admit.asks_for_form(text.sampling)
            if call.has_form:
                formats.check_asked(text.sampling)
            call.text = admit.bounded(text, routes.max_tokens)
        routes.demand += 1
        if caller.priority:
            state.low_priority += call.priority == "low"
        if caller.subject_hash:
            call.subject_hash = caller.subject_hash
        elif subject := ask.subject:
            call.subject_hash = self._keeper.subject_hash(principal.team, subject)
        self._keeper.check_room(len(request.body))
        return self._limiter.reserve(call, routes, principal) if self._limiter.is_on else None

    async def _fail(self, call: Call, error: PilothouseError) -> None:
        """Tell the caller: as an answer, or inside the stream that has begun, which then has no good end."""
        call.code = error.code
        routes = call.routes
        responder = call.responder
        if call.flight is not None:
            self._recall.give_up(call.flight, error)
        if responder.is_started:
            self._meters.cut.labels(routes.name if routes is not None else "", call.deployment).inc()
            await self._keep_quietly(call)
            responder.end(call.writer.fail(error) if call.writer is not None else b"")
            return
        _named(call)
        headers = call.answer_headers(JSON)
        if call.principal is None:
            self._meters.refused.labels(error.code).inc()
        await self._keep_quietly(call)
        status = call.dialect.status(error)
        responder.send(status, headers + answers.error_headers(error), call.dialect.error(error))

    async def _keep_quietly(self, call: Call) -> None:
        """Keep the record of a call that failed; a full journal has nothing to add to that."""
        try:
            await self._keeper.keep(call)
        except PilothouseError as exc:
            self._log.failure("record_not_kept", exc, request_id=call.id)


def _named(call: Call) -> str:
    """Its id, also where it failed before it was known who asks."""
    call.id = call.id or new_id(PREFIX)
    return call.id
