"""
What Anthropic's clients ask: messages, how many tokens they have, and which models there are.

`/v1/models` is also the OpenAI dialect's: who sends `anthropic-version` gets Anthropic's shape.
"""

from urllib.parse import parse_qsl

from pilothouse.domain.errors import InvalidRequest, ModelNotFound, NotSupported, PilothouseError
from pilothouse.gateway import admit
from pilothouse.gateway.count import Counting
from pilothouse.gateway.pipeline import Pipeline
from pilothouse.gateway.state import GatewayState
from pilothouse.http.answering import send_error, send_json
from pilothouse.http.routes import Route
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.wire.anthropic import answers, dialect, inbound

VERSION_HEADER = b"anthropic-version"
VERSIONS = (b"2026-10-21", b"2023-06-01")
"""Those whose events these are; what only the older one has is taken from both."""
_POST = frozenset({"POST"})
_ANY = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_MOST_MODELS = 1000
_PAGE = 20


class AnthropicRoutes:
    def __init__(self, state: GatewayState, pipeline: Pipeline) -> None:
        self._state = state
        self._counting = Counting(state)
        self._answer = pipeline.serving(dialect.MESSAGES)

    def exact(self) -> dict[str, Route]:
        return {
            "/v1/messages": Route(_POST, self._messages, "key"),
            "/v1/messages/count_tokens": Route(_POST, self._count, "key"),
        }

    def prefixes(self) -> dict[str, Route]:
        return {"/v1/messages/": Route(_ANY, self._not_built, "key")}

    async def _messages(self, request: Request, responder: Responder) -> None:
        try:
            _check_version(request)
        except PilothouseError as exc:
            _refuse(responder, exc)
            return
        await self._answer(request, responder)

    async def _count(self, request: Request, responder: Responder) -> None:
        try:
            _check_version(request)
            principal = self._state.authenticator.authenticate(request.headers)
            ask = inbound.read_prompt(request.body)
            routes = admit.routes_for(self._state.routes, principal, ask.endpoint, "chat")
            tokens = await self._counting.count(ask, routes.entry)
        except PilothouseError as exc:
            _refuse(responder, exc)
            return
        send_json(responder, 200, answers.write_count(tokens))

    async def _not_built(self, request: Request, responder: Responder) -> None:
        try:
            self._state.authenticator.authenticate(request.headers)
            raise NotSupported(f"{request.path[:100]} is not supported in this version")
        except PilothouseError as exc:
            _refuse(responder, exc)

    def models(self, request: Request, responder: Responder) -> None:
        try:
            _check_version(request)
            principal = self._state.authenticator.authenticate(request.headers)
            known = self._state.endpoints.items()
            visible = sorted((name, e.created_at) for name, e in known if admit.may_see(principal, e))
            page, has_more = _page(visible, request.query)
        except PilothouseError as exc:
            _refuse(responder, exc)
            return
        models = [answers.model_of(name, created) for name, created in page]
        send_json(responder, 200, answers.write_models(models, has_more=has_more))

    def model(self, name: str, request: Request, responder: Responder) -> None:
        try:
            _check_version(request)
            principal = self._state.authenticator.authenticate(request.headers)
            endpoint = self._state.endpoints.get(name)
            if endpoint is None or not admit.may_see(principal, endpoint):
                raise ModelNotFound(f"the model {name[:100]!r} does not exist or this key may not use it")
        except PilothouseError as exc:
            _refuse(responder, exc)
            return
        send_json(responder, 200, answers.write_model(answers.model_of(name, endpoint.created_at)))


def _check_version(request: Request) -> None:
    """Who sends none gets the newest."""
    version = request.headers.get(VERSION_HEADER, VERSIONS[0])
    if version not in VERSIONS:
        shown = version[:32].decode("latin-1")
        raise InvalidRequest(
            f"anthropic-version {shown!r} is not supported; send {VERSIONS[0].decode()}",
            param="anthropic-version",
        )


def _page(models: list[tuple[str, int]], query: str) -> tuple[list[tuple[str, int]], bool]:
    """
    The models that `limit`, `after_id` and `before_id` ask for, and whether there are more.

    Raises:
        InvalidRequest: Another parameter, or one that means nothing.
    """
    given = dict(parse_qsl(query))
    for name in given.keys() - {"limit", "after_id", "before_id", "lifecycle", "beta"}:
        raise InvalidRequest(f"unknown parameter {name[:64]!r}; leave it out", param=name[:64])
    text = given.get("limit", str(_PAGE))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= limit <= _MOST_MODELS:
        raise InvalidRequest(f"limit is 1 to {_MOST_MODELS}", param="limit")
    if given.get("lifecycle", "active") != "active":  # a model that is here is active
        models = []
    if "before_id" in given:
        models = [model for model in models if model[0] < given["before_id"]]
        return models[-limit:], len(models) > limit
    models = [model for model in models if model[0] > given.get("after_id", "")]
    return models[:limit], len(models) > limit


def _refuse(responder: Responder, error: PilothouseError) -> None:
    send_error(responder, error, status=answers.status_of(error), write=answers.write_error)
