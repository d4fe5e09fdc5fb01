"""Anthropic, or whatever speaks its protocol: a provider that Pilothouse attaches to."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from pilothouse.adapters.engines._anthropic_http import AnthropicEngine
from pilothouse.adapters.engines._attached import pinned, token_of
from pilothouse.domain.chat import Ability
from pilothouse.domain.errors import NotSupported
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import AttachOptions
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import (
    KEEPS_ALL,
    NO_OPTIONS,
    EngineAbility,
    EngineInfo,
    Installed,
    Launch,
    Machine,
)
from pilothouse.wire.anthropic.outbound import PromptCache


class AnthropicOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: anthropic`."""

    base_url: Annotated[str, Meta(min_length=1)]
    """Where the provider is: `https://api.anthropic.com`."""
    prompt_cache: PromptCache = "off"
    """How long the provider keeps a prompt to begin the next from: reading costs less then, keeping more."""


class AnthropicDriver:
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "anthropic"
    options = AnthropicOptions
    abilities: frozenset[EngineAbility] = frozenset({"attach", "stream", "cancel", "tools"})
    cannot = KEEPS_ALL
    formats: frozenset[ModelFormat] = frozenset()

    def __init__(self, cohort: Cohort | None = None) -> None:
        self._cohort = cohort

    def installed(self) -> Installed:
        return Installed(ok=True)

    def launch(self, name: str, spec: DeploymentSpec, artifact: Artifact, machine: Machine) -> Launch:  # noqa: ARG002 - the port's shape
        raise NotSupported("engine anthropic attaches to a provider; it starts nothing")

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
            token=token_of(secret),
            pin=pinned(address, allow_private=allow_private),
            cohort=self._cohort,
            prompt_cache=options.get("prompt_cache", "off"),
        )


_READS: frozenset[Ability] = frozenset({"tools", "image", "file"})
