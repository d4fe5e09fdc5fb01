"""
What Ollama's clients ask beside answers: which models there are, what they are, which are loaded.

A model is an endpoint. What would change something is the admin API's, and said so.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from pilothouse import __version__
from pilothouse.domain.errors import ModelNotFound, NotSupported, PermissionDenied, PilothouseError
from pilothouse.domain.principal import Principal
from pilothouse.domain.snapshot import EndpointEntry
from pilothouse.gateway.admit import may_see
from pilothouse.gateway.pipeline import Pipeline
from pilothouse.gateway.state import GatewayState
from pilothouse.http.answering import send_error, send_json
from pilothouse.http.routes import Route
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.wire.ollama import dialect
from pilothouse.wire.ollama.answers import write_error
from pilothouse.wire.ollama.inbound import read_name

API_VERSION = "0.12.6"
"""Ollama's release whose protocol this follows: clients look at it before they use newer fields."""
_POST = frozenset({"POST"})
_GET = frozenset({"GET", "HEAD"})
_ANY = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_CHANGES = {
    "/api/pull": "pilothouse model pull",
    "/api/push": "pilothouse model export",
    "/api/create": "pilothouse apply",
    "/api/copy": "an alias of the endpoint in the spec",
    "/api/delete": "pilothouse model remove",
    "/api/blobs/": "pilothouse model pull file:",
}


class OllamaRoutes:
    def __init__(self, state: GatewayState, pipeline: Pipeline) -> None:
        self._state = state
        self._pipeline = pipeline

    def exact(self) -> dict[str, Route]:
        serving = self._pipeline.serving
        return {
            "/api/chat": Route(_POST, serving(dialect.CHAT), "key"),
            "/api/generate": Route(_POST, serving(dialect.GENERATE), "key"),
            "/api/embed": Route(_POST, serving(dialect.EMBED), "key"),
            "/api/tags": Route(_GET, self._tags, "key"),
            "/api/ps": Route(_GET, self._loaded, "key"),
            "/api/show": Route(_POST, self._show, "key"),
            "/api/version": Route(_GET, self._version, "open"),
        }

    def prefixes(self) -> dict[str, Route]:
        return dict.fromkeys(_CHANGES, Route(_ANY, self._change, "key"))

    async def _tags(self, request: Request, responder: Responder) -> None:
        self._list(request, responder, is_loaded=False)

    async def _loaded(self, request: Request, responder: Responder) -> None:
        self._list(request, responder, is_loaded=True)

    def _list(self, request: Request, responder: Responder, *, is_loaded: bool) -> None:
        try:
            principal = self._authenticated(request)
        except PilothouseError as exc:
            _refuse(responder, exc)
            return
        seen = [
            self._described(name, endpoint)
            for name, endpoint in sorted(self._state.endpoints.items())
            if may_see(principal, endpoint) and (self._is_loaded(endpoint) or not is_loaded)
        ]
        send_json(responder, 200, msgspec.json.encode({"models": seen}))

    async def _show(self, request: Request, responder: Responder) -> None:
        try:
            principal = self._authenticated(request)
            name = read_name(request.body)
            endpoint = self._state.endpoints.get(name)
            if endpoint is None or not may_see(principal, endpoint):
                raise ModelNotFound(f"model {name[:100]!r} is not here, or this key may not use it")
        except PilothouseError as exc:
            _refuse(responder, exc)
            return
        known = self._described(name, endpoint)
        capabilities = ["embedding"] if "embedding" in endpoint.tasks else ["completion"]
        abilities = self._abilities(endpoint)
        capabilities += ["tools"] if "tools" in abilities else []
        capabilities += ["vision"] if "image" in abilities else []
        about = {"general.architecture": "pilothouse"}
        body = {
            "modified_at": known["modified_at"],
            "details": known["details"],
            "capabilities": capabilities,
            "model_info": about | self._context(endpoint),
        }
        send_json(responder, 200, msgspec.json.encode(body))

    async def _version(self, request: Request, responder: Responder) -> None:  # noqa: ARG002 - a handler's shape
        body = {"version": API_VERSION, "pilothouse": __version__}
        send_json(responder, 200, msgspec.json.encode(body))

    async def _change(self, request: Request, responder: Responder) -> None:
        try:
            principal = self._authenticated(request)
            if principal.role != "admin":
                raise PermissionDenied("models are changed with an admin key only")
            instead = next(how for path, how in _CHANGES.items() if request.path.startswith(path))
            raise NotSupported(f"{request.path[:100]} is not supported here; use: {instead}")
        except PilothouseError as exc:
            _refuse(responder, exc)

    def _authenticated(self, request: Request) -> Principal:
        return self._state.authenticator.authenticate(request.headers)

    def _described(self, name: str, endpoint: EndpointEntry) -> dict[str, Any]:
        replicas = self._state.snapshot.replicas
        found = [one for route in endpoint.routes for one in replicas.get(route.deployment, ())]
        digest = next((one.model_digest for one in found if one.model_digest), "")
        return {
            "name": name,
            "model": name,
            "modified_at": datetime.fromtimestamp(endpoint.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "size": 0,
            "digest": digest.removeprefix("sha256:"),
            "details": {
                "parent_model": "",
                "format": "",
                "family": found[0].engine if found else "",
                "families": sorted({one.engine for one in found}),
                "parameter_size": "",
                "quantization_level": "",
            },
        }

    def _is_loaded(self, endpoint: EndpointEntry) -> bool:
        return any(self._state.snapshot.replicas.get(route.deployment) for route in endpoint.routes)

    def _context(self, endpoint: EndpointEntry) -> dict[str, int]:
        replicas = self._state.snapshot.replicas
        known = [
            one.context_tokens
            for route in endpoint.routes
            for one in replicas.get(route.deployment, ())
            if one.context_tokens
        ]
        return {"pilothouse.context_length": min(known)} if known else {}

    def _abilities(self, endpoint: EndpointEntry) -> frozenset[str]:
        """What all of its replicas can."""
        found = [
            replica.engine.info.can
            for route in endpoint.routes
            if (places := self._state.places.get(route.deployment)) is not None
            for replica in places.replicas.values()
        ]
        return frozenset.intersection(*found) if found else frozenset()


def _refuse(responder: Responder, error: PilothouseError) -> None:
    send_error(responder, error, write=write_error)
