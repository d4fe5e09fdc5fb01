"""Google's models on Vertex AI: Gemini's dialect, in a project, with tokens of a service account."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta

from pilothouse.adapters.engines._attached import READS_ALL, AttachedDriver, pinned
from pilothouse.adapters.engines._gemini_http import GeminiEngine
from pilothouse.adapters.engines._google_token import FETCH_S, GoogleToken, ServiceAccount
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.options import AttachOptions
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import NO_OPTIONS, EngineAbility, EngineInfo
from pilothouse.wire.gemini import outbound, said

_Name = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,62}$")]


class VertexOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: vertex`."""

    base_url: Annotated[str, Meta(min_length=1)]
    """Where the provider is: `https://LOCATION-aiplatform.googleapis.com`, or without `LOCATION-`."""
    project: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9.:-]{0,62}$")]
    """Of Google Cloud, by its id."""
    location: _Name
    """Where the model is asked, such as `europe-west4` or `global`."""


class VertexEngine(GeminiEngine):
    """
    Implements `ports.engine.Engine`.

    Args:
        token: Proves who asks; None where nothing has to.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        path: str,
        token: GoogleToken | None,
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        super().__init__(info, address, model=model, path=path, pin=pin, cohort=cohort)
        self._token = token

    async def ready(self, deadline_s: float) -> float:
        if self._token is None:
            return deadline_s
        began = time.monotonic()
        self.credential = await self._token.line(timeout_s=min(FETCH_S, deadline_s))
        return deadline_s - (time.monotonic() - began)

    async def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Embeddings:
        deadline_s = await self.ready(deadline_s)
        data = self.posted("predict", outbound.write_predict(request))
        return await self.whole(
            data,
            lambda body: said.read_predictions(body, count=len(request.inputs)),
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    def refused(self, status: int, body: bytes) -> PilothouseError | None:
        if status == 401 and self._token is not None:
            self._token.forget()
        return super().refused(status, body)

    async def aclose(self) -> None:
        await super().aclose()
        if self._token is not None:
            await self._token.aclose()


class VertexDriver(AttachedDriver):
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "vertex"
    options = VertexOptions
    abilities: frozenset[EngineAbility] = frozenset({"attach", "stream", "cancel", "tools", "embeddings"})

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> VertexEngine:
        """
        Raises:
            OperationFailed: An address is malformed or not allowed, or the secret is no service account.
        """
        given = msgspec.convert({"base_url": address, **options}, VertexOptions)
        place = f"/v1/projects/{quote(given.project, safe='')}/locations/{given.location}"
        return VertexEngine(
            EngineInfo(name=self.name, context_tokens=context_tokens, whole=True, can=READS_ALL),
            address.rstrip("/"),
            model=model,
            path=f"{place}/publishers/google/models/{quote(model, safe='')}",
            token=None if secret is None else _token(secret, allow_private=allow_private),
            pin=pinned(address, allow_private=allow_private),
            cohort=self.cohort,
        )


def _token(secret: Secret, *, allow_private: bool) -> GoogleToken:
    account = ServiceAccount(secret)
    return GoogleToken(account, pin=pinned(account.token_uri, allow_private=allow_private))
