"""
What a gateway worker answers: the OpenAI routes, health, and the way to the controller.
"""

import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from pilothouse.domain.errors import (
    InvalidRequest,
    ModelNotFound,
    NotFound,
    NotSupported,
    PilothouseError,
)
from pilothouse.gateway.admit import may_see
from pilothouse.gateway.pipeline import Pipeline
from pilothouse.gateway.state import GatewayState
from pilothouse.http.answering import send_error, send_json
from pilothouse.http.anthropic import VERSION_HEADER, AnthropicRoutes
from pilothouse.http.kserve import KServeRoutes
from pilothouse.http.moderations import ModerationRoutes
from pilothouse.http.ollama import OllamaRoutes
from pilothouse.http.pass_through import PassThrough
from pilothouse.http.responses import ResponsesRoutes
from pilothouse.http.routes import NOT_BUILT_PATHS, PASSED_PATHS, PASSED_PREFIXES, Route, Routes
from pilothouse.kit.http1.client import Client
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.ports.feed import Feed
from pilothouse.wire.openai import answers, dialect

POST = frozenset({"POST"})
GET = frozenset({"GET", "HEAD"})
ANY = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class DataPlane:
    """The worker's handler: `handle` answers every request."""

    def __init__(self, state: GatewayState, pipeline: Pipeline, feed: Feed, controller: Client) -> None:
        self._state = state
        self._feed = feed
        passed = Route(ANY, PassThrough(controller).handle, "controller")
        responses = ResponsesRoutes(state, pipeline, controller)
        not_built = Route(ANY, self._not_built, "key")
        ollama = OllamaRoutes(state, pipeline)
        kserve = KServeRoutes(state, pipeline, self._readiness)
        self._anthropic = anthropic = AnthropicRoutes(state, pipeline)
        self._routes = Routes(
            {
                **ollama.exact(),
                **anthropic.exact(),
                **kserve.exact(),
                "/v1/chat/completions": Route(POST, pipeline.serving(dialect.CHAT), "key"),
                "/v1/completions": Route(POST, pipeline.serving(dialect.COMPLETION), "key"),
                "/v1/responses": Route(POST, responses.create, "key"),
                "/v1/moderations": Route(POST, ModerationRoutes(state, pipeline).create, "key"),
                "/v1/embeddings": Route(POST, pipeline.serving(dialect.EMBEDDINGS), "key"),
                "/v1/models": Route(GET, self._models, "key"),
                "/livez": Route(GET, self._livez, "open"),
                "/readyz": Route(GET, self._readyz, "open"),
                **dict.fromkeys(PASSED_PATHS, passed),
            },
            {
                "/v1/models/": Route(GET, self._model, "key"),
                "/v1/responses/": passed,
                **dict.fromkeys(PASSED_PREFIXES, passed),
                **ollama.prefixes(),
                **anthropic.prefixes(),
                **kserve.prefixes(),
                **dict.fromkeys(NOT_BUILT_PATHS, not_built),
            },
        )

    def handle(self, request: Request, responder: Responder) -> Coroutine[Any, Any, None]:
        route = self._routes.find(request.path)
        if route is None:
            shown = request.path[:100]
            return _refuse(responder, NotFound(f"there is nothing at {shown}; the API begins with /v1"))
        if request.method not in route.methods:
            allowed = ", ".join(sorted(route.methods))
            error = InvalidRequest(f"{request.method} is not allowed here; use {allowed}")
            return _refuse(responder, error, status=405, headers=f"allow: {allowed}\r\n".encode())
        return route.handler(request, responder)

    async def _models(self, request: Request, responder: Responder) -> None:
        if VERSION_HEADER in request.headers:
            self._anthropic.models(request, responder)
            return
        try:
            principal = self._state.authenticator.authenticate(request.headers)
        except PilothouseError as exc:
            send_error(responder, exc)
            return
        known = self._state.endpoints.items()
        visible = sorted((name, e.created_at) for name, e in known if may_see(principal, e))
        send_json(responder, 200, answers.write_models(visible))

    async def _model(self, request: Request, responder: Responder) -> None:
        name = request.path.removeprefix("/v1/models/")
        if VERSION_HEADER in request.headers:
            self._anthropic.model(name, request, responder)
            return
        try:
            principal = self._state.authenticator.authenticate(request.headers)
            endpoint = self._state.endpoints.get(name)
            if endpoint is None or not may_see(principal, endpoint):
                raise ModelNotFound(f"the model {name[:100]!r} does not exist or this key may not use it")
        except PilothouseError as exc:
            send_error(responder, exc)
            return
        send_json(responder, 200, answers.write_model(name, endpoint.created_at))

    async def _not_built(self, request: Request, responder: Responder) -> None:
        try:
            self._state.authenticator.authenticate(request.headers)
            raise NotSupported(f"{request.path[:100]} is not supported in this version")
        except PilothouseError as exc:
            send_error(responder, exc)

    async def _livez(self, request: Request, responder: Responder) -> None:  # noqa: ARG002 - a handler's shape
        send_json(responder, 200, b'{"status":"ok"}')

    async def _readyz(self, request: Request, responder: Responder) -> None:  # noqa: ARG002 - a handler's shape
        ready, reasons = self._readiness()
        body = msgspec.json.encode({"status": "ready" if ready else "not_ready", "reasons": reasons})
        send_json(responder, 200 if ready else 503, body)

    def _readiness(self) -> tuple[bool, list[str]]:
        state = self._state
        reasons: list[str] = []
        if not state.has_snapshot:
            reasons.append("no snapshot from the controller yet")
        gone_since = self._feed.disconnected_since
        if gone_since is not None and state.has_snapshot:
            reasons.append(
                f"the controller is out of reach for {time.time() - gone_since:.0f} s; serving what is known"
            )
        reasons.extend(state.snapshot.warnings)
        serving = 0
        for endpoint in state.snapshot.endpoints.values():
            names = [*(route.deployment for route in endpoint.routes), *endpoint.fallback]
            known = [state.places[name] for name in names if name in state.places]
            if any(places.replicas or places.entry.may_hold for places in known):
                serving += 1
            else:
                entry = state.snapshot.deployments.get(names[0]) if names else None
                why = (entry.reason or entry.phase) if entry else "its deployment is unknown"
                reasons.append(f"endpoint {endpoint.name} has no ready replica: {why}")
        if state.has_snapshot and not state.snapshot.endpoints:
            reasons.append("no endpoint is declared")
        return serving > 0, reasons


async def _refuse(
    responder: Responder, error: PilothouseError, *, status: int | None = None, headers: bytes = b""
) -> None:
    send_error(responder, error, status=status, headers=headers)
