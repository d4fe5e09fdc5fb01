"""
Any server that speaks the OpenAI dialect and already runs: Pilothouse attaches to it.

It neither starts nor stops it. Where it may be is decided by the egress policy at
every new connection: a private address only where the deployment allows it.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.chat import Ability
from pilothouse.domain.errors import NotSupported, OperationFailed
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import AttachOptions
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit import egress
from pilothouse.kit.cohort import Cohort
from pilothouse.ports.engine import NO_OPTIONS, EngineAbility, EngineInfo, Installed, Launch, Machine

RESOLVE_S = 5.0


class OpenAIOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: openai`."""

    base_url: Annotated[str, Meta(min_length=1)]
    """Where the server runs, ending in `/v1`, such as `https://provider.example/v1`."""


class OpenAIDriver:
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "openai"
    options = OpenAIOptions
    abilities: frozenset[EngineAbility] = frozenset(
        {"attach", "stream", "cancel", "tools", "logprobs", "embeddings"}
    )
    formats: frozenset[ModelFormat] = frozenset()

    def __init__(self, cohort: Cohort | None = None) -> None:
        self._cohort = cohort

    def installed(self) -> Installed:
        return Installed(ok=True)

    def launch(self, name: str, spec: DeploymentSpec, artifact: Artifact, machine: Machine) -> Launch:  # noqa: ARG002 - the port's shape
        raise NotSupported("engine openai attaches to a server that runs already; it starts none")

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        token_file: str = "",
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,  # noqa: ARG002 - the core read what there is
    ) -> OpenAIEngine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, or the token cannot be read.
        """
        try:
            where = egress.parse_url(address, schemes=("http", "https"), allow_private=allow_private)
        except ValueError as exc:
            raise OperationFailed(f"base_url {address!r}: {exc}") from exc
        return OpenAIEngine(
            EngineInfo(name=self.name, context_tokens=context_tokens, whole=True, can=_ALL),
            address.rstrip("/"),
            model=model,
            token=_token(token_file),
            pin=_pinned(where.host, where.port, allow_private=allow_private),
            cohort=self._cohort,
        )


_ALL: frozenset[Ability] = frozenset({"tools", "image", "audio", "file"})
"""What its model cannot read, the server says itself."""


def _token(token_file: str) -> str:
    if not token_file:
        return ""
    try:
        token = Path(token_file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise OperationFailed(f"token_file {token_file!r} cannot be read: {exc}") from exc
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise OperationFailed(f"token_file {token_file!r} must hold one token of visible ASCII characters")
    return token


def _pinned(host: str, port: int, *, allow_private: bool) -> Callable[[], Awaitable[str]]:
    async def pin() -> str:
        found = await egress.resolve_async(host, port, allow_private=allow_private, timeout_s=RESOLVE_S)
        return found[0].ip

    return pin
