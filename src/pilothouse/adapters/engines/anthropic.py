"""Anthropic, or whatever speaks its protocol: a provider that Pilothouse attaches to."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from pilothouse.adapters.engines._anthropic_http import AnthropicEngine
from pilothouse.adapters.engines._attached import AttachedDriver, bearer, pinned, token_of
from pilothouse.domain.chat import Ability
from pilothouse.domain.options import AttachOptions
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import NO_OPTIONS, EngineAbility, EngineInfo
from pilothouse.wire.anthropic.outbound import PromptCache


class AnthropicOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: anthropic`."""

    base_url: Annotated[str, Meta(min_length=1)]
    """Where the provider is: `https://api.anthropic.com`."""
    prompt_cache: PromptCache = "off"
    """How long the provider keeps a prompt to begin the next from: reading costs less then, keeping more."""


class AnthropicDriver(AttachedDriver):
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "anthropic"
    options = AnthropicOptions
    abilities: frozenset[EngineAbility] = frozenset({"attach", "stream", "cancel", "tools"})

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> AnthropicEngine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, or the secret is no bearer token.
        """
        return AnthropicEngine(
            EngineInfo(name=self.name, context_tokens=context_tokens, whole=True, can=_READS),
            address.rstrip("/"),
            model=model,
            credential=bearer(token_of(secret)),
            pin=pinned(address, allow_private=allow_private),
            cohort=self.cohort,
            prompt_cache=options.get("prompt_cache", "off"),
        )


_READS: frozenset[Ability] = frozenset({"tools", "image", "file", "redacted_thinking"})
