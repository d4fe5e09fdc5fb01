"""Azure OpenAI: the OpenAI dialect, with its deployment in the path, a version, and a key of its own kind."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from pilothouse.adapters.engines._attached import OPENAI_TAKES, AttachedDriver, bearer, pinned, token_of
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.options import AttachOptions
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import NO_OPTIONS, EngineAbility, EngineInfo


class AzureOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: azure-openai`; `provider_model` is the deployment's name there."""

    base_url: Annotated[str, Meta(min_length=1)]
    """The resource: `https://NAME.openai.azure.com`."""
    api_version: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$")] = "2024-10-21"
    """Of the data plane."""
    auth: Literal["api_key", "entra"] = "api_key"
    """What the secret is: a key of the resource, or a token of Microsoft Entra, which ends within hours."""


class AzureOpenAIDriver(AttachedDriver):
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "azure-openai"
    options = AzureOptions
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
    ) -> OpenAIEngine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, or the secret is no key.
        """
        given = msgspec.convert({"base_url": address, **options}, AzureOptions)
        token = token_of(secret)
        key = f"api-key: {token}" if token else ""
        return OpenAIEngine(
            EngineInfo(name=self.name, context_tokens=context_tokens, whole=True, can=OPENAI_TAKES),
            f"{address.rstrip('/')}/openai/deployments/{quote(model, safe='')}",
            model=model,
            credential=bearer(token) if given.auth == "entra" else key,
            query=f"?api-version={given.api_version}",
            pin=pinned(address, allow_private=allow_private),
            cohort=self.cohort,
        )
