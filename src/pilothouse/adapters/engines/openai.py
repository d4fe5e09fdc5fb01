"""
Any server that speaks the OpenAI dialect and already runs: Pilothouse attaches to it.

It neither starts nor stops it.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from pilothouse.adapters.engines._attached import OPENAI_TAKES, AttachedDriver, bearer, pinned, token_of
from pilothouse.adapters.engines._server_load import LoadKind, ServerEngine
from pilothouse.domain.options import AttachOptions
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import NO_OPTIONS, EngineAbility, EngineInfo


class OpenAIOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: openai`."""

    base_url: Annotated[str, Meta(min_length=1)]
    """Where the server runs, ending in `/v1`, such as `https://provider.example/v1`."""
    load: LoadKind = "none"
    """How the server says how busy it is, asked every few seconds: `vllm`, `sglang`, `llama` (llama.cpp's
    server), or `auto`, which finds out. Providers do not say."""


class OpenAIDriver(AttachedDriver):
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "openai"
    options = OpenAIOptions
    abilities: frozenset[EngineAbility] = frozenset(
        {"attach", "stream", "cancel", "tools", "logprobs", "embeddings"}
    )

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> ServerEngine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, or the secret is no bearer token.
        """
        return ServerEngine(
            EngineInfo(name=self.name, context_tokens=context_tokens, whole=True, can=OPENAI_TAKES),
            address.rstrip("/"),
            model=model,
            credential=bearer(token_of(secret)),
            pin=pinned(address, allow_private=allow_private),
            cohort=self.cohort,
            kind=options.get("load", "none"),
        )
