"""
What clients of the Open Inference Protocol ask: answers, and what there is. A model is an endpoint.

Which form `infer` has follows from what the endpoint does: text, vectors, or tensors
as they are. What would change something is the admin API's, and said so.
"""

from collections.abc import Callable
from urllib.parse import unquote

from pilothouse import __version__
from pilothouse.domain.errors import InvalidRequest, ModelNotFound, NotFound, NotSupported, PilothouseError
from pilothouse.domain.snapshot import EndpointEntry
from pilothouse.gateway.admit import may_see
from pilothouse.gateway.call import AnyDialect
from pilothouse.gateway.pipeline import Pipeline
from pilothouse.gateway.state import GatewayState
from pilothouse.http.answering import send_error, send_json
from pilothouse.http.routes import Route
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.wire.kserve_v2 import about, infer
from pilothouse.wire.kserve_v2.dialect import VERSION, Tensors, Text, Vectors, described, write_error

_GET = frozenset({"GET", "HEAD"})
_POST = frozenset({"POST"})
_ANY = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_MODELS = "/v2/models/"
_NOT_BUILT = (
    "/v2/repository/",
    "/v2/systemsharedmemory/",
    "/v2/cudasharedmemory/",
    "/v2/trace/",
    "/v2/logging",
)
"""Of Triton's extensions and MLServer's: what changes a server, or reaches into its memory."""
_ASKED = {"infer", "generate", "generate_stream"}


class KServeRoutes:
    """
    Args:
        readiness: Whether this worker is ready, and why not.
    """

    def __init__(
        self, state: GatewayState, pipeline: Pipeline, readiness: Callable[[], tuple[bool, list[str]]]
    ) -> None:
        self._state = state
        self._pipeline = pipeline
        self._readiness = readiness

    def exact(self) -> dict[str, Route]:
        return {
            "/v2": Route(_GET, self._server, "open"),
            "/v2/health/live": Route(_GET, self._live, "open"),
            "/v2/health/ready": Route(_GET, self._ready, "open"),
        }

    def prefixes(self) -> dict[str, Route]:
        return {
            _MODELS: Route(_ANY, self._model, "key"),
            **dict.fromkeys(_NOT_BUILT, Route(_ANY, self._not_built, "key")),
        }

    async def _server(self, request: Request, responder: Responder) -> None:  # noqa: ARG002 - a handler's shape
        said = about.ServerMetadata(name=about.NAME, version=__version__, extensions=list(about.EXTENSIONS))
        send_json(responder, 200, about.write(said))

    async def _live(self, request: Request, responder: Responder) -> None:  # noqa: ARG002 - a handler's shape
        send_json(responder, 200, about.write_flag(live=True))

    async def _ready(self, request: Request, responder: Responder) -> None:  # noqa: ARG002 - a handler's shape
        ready, _ = self._readiness()
        send_json(responder, 200 if ready else 503, about.write_flag(ready=ready))

    async def _not_built(self, request: Request, responder: Responder) -> None:
        try:
            self._state.authenticator.authenticate(request.headers)
            raise NotSupported(
                f"{request.path[:100]} is not supported here; models are changed with: pilothouse apply"
            )
        except PilothouseError as exc:
            _refuse(responder, exc)

    async def _model(self, request: Request, responder: Responder) -> None:
        try:
            name, verb = _named(request.path)
            if request.method not in (_POST if verb in _ASKED else _GET):
                use = "POST" if verb in _ASKED else "GET"
                error = InvalidRequest(f"{request.method} is not allowed here; use {use}")
                _refuse(responder, error, status=405)
                return
            if verb not in _ASKED:
                self._about(request, responder, name, verb)
                return
            dialect = self._dialect(request, name, verb)
        except PilothouseError as exc:
            _refuse(responder, exc)
            return
        await self._pipeline.serve(request, responder, dialect)

    def _about(self, request: Request, responder: Responder, name: str, verb: str) -> None:
        principal = self._state.authenticator.authenticate(request.headers)
        endpoint = self._state.endpoints.get(name)
        if endpoint is None or not may_see(principal, endpoint):
            raise ModelNotFound(f"the model {name[:100]!r} is not here, or this key may not use it")
        if verb == "ready":
            ready = self._is_ready(endpoint)
            send_json(responder, 200 if ready else 503, about.write_flag(name=name, ready=ready))
        elif verb:
            raise NotSupported(f"{request.path[:100]} is not supported here")
        else:
            send_json(responder, 200, about.write(described(name, endpoint.tasks)))

    def _dialect(self, request: Request, name: str, verb: str) -> AnyDialect:
        if verb != "infer":
            return Text(name, is_generate=True, stream=verb == "generate_stream")
        length = _length(request)
        endpoint = self._state.endpoints.get(name)
        if endpoint is None or "completion" in endpoint.tasks:
            return Text(name, length=length)
        if "embedding" in endpoint.tasks:
            return Vectors(name, length=length)
        return Tensors(name, length=length)

    def _is_ready(self, endpoint: EndpointEntry) -> bool:
        names = [*(route.deployment for route in endpoint.routes), *endpoint.fallback]
        known = [self._state.places[name] for name in names if name in self._state.places]
        return any(places.replicas or places.entry.may_hold for places in known)


def _named(path: str) -> tuple[str, str]:
    """
    The endpoint and what is asked of it: `/v2/models/NAME[/versions/1][/VERB]`.

    Raises:
        NotFound: Another version; an endpoint has one.
    """
    name, _, rest = path.removeprefix(_MODELS).partition("/")
    if rest.startswith("versions/"):
        version, _, rest = rest.removeprefix("versions/").partition("/")
        if version != VERSION:
            raise NotFound(f"{name[:100]!r} has no version {version[:20]!r}; there is {VERSION} alone")
    return unquote(name), rest


def _length(request: Request) -> int | None:
    """
    Where the JSON of a request ends, if bytes follow it.

    Raises:
        InvalidRequest: The header is no number.
    """
    value = request.headers.get(infer.LENGTH_HEADER.encode())
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidRequest(f"{infer.LENGTH_HEADER} must be a number of bytes", param=infer.LENGTH_HEADER)
    return int(text)


def _refuse(responder: Responder, error: PilothouseError, *, status: int | None = None) -> None:
    send_error(responder, error, status=status, write=write_error)
