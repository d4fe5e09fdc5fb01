"""Google Gemini, by the Gemini API and its key."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from msgspec import Meta

from pilothouse.adapters.engines._attached import READS_ALL, AttachedDriver, pinned, token_of
from pilothouse.adapters.engines._gemini_http import GeminiEngine
from pilothouse.domain.options import AttachOptions
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import NO_OPTIONS, EngineAbility, EngineInfo


class GeminiOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: gemini`."""

    base_url: Annotated[str, Meta(min_length=1)]
    """Where the provider is: `https://generativelanguage.googleapis.com`."""


class GeminiDriver(AttachedDriver):
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "gemini"
    options = GeminiOptions
    abilities: frozenset[EngineAbility] = frozenset({"attach", "stream", "cancel", "tools", "embeddings"})

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,  # noqa: ARG002 - the core read what there is
    ) -> GeminiEngine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, or the secret is no key.
        """
        token = token_of(secret)
        return GeminiEngine(
            EngineInfo(name=self.name, context_tokens=context_tokens, whole=True, can=READS_ALL),
            address.rstrip("/"),
            model=model,
            path=f"/v1/models/{quote(model, safe='')}",
            credential=f"x-goog-api-key: {token}" if token else "",
            pin=pinned(address, allow_private=allow_private),
            cohort=self.cohort,
        )
