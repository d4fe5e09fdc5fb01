"""Models of Amazon Bedrock, whoever made them, by Converse."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pilothouse.adapters.engines._attached import READS_ALL, AttachedDriver, bearer, pinned, token_of
from pilothouse.adapters.engines._bedrock_http import BedrockEngine
from pilothouse.domain.chat import Ability
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.options import AttachOptions
from pilothouse.kit.secret import Secret
from pilothouse.kit.sigv4 import SigningKey
from pilothouse.ports.engine import NO_OPTIONS, EngineAbility, EngineInfo


class BedrockOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: bedrock`; `provider_model` is a model's id, a profile's, or an ARN."""

    base_url: Annotated[str, Meta(min_length=1)]
    """Where the provider is: `https://bedrock-runtime.REGION.amazonaws.com`, or an endpoint of your VPC."""
    region: Annotated[str, Meta(pattern="^[a-z]{2}[a-z0-9-]{3,28}$")]
    """Of AWS, for which requests are signed."""
    auth: Literal["access_key", "api_key"] = "access_key"
    """What the secret is: an access key, as JSON that the `aws` command prints, or an API key of Bedrock."""


class AccessKey(Struct, frozen=True, rename="pascal"):
    """As `aws configure export-credentials` prints it; id and key are one secret, so they change as one."""

    access_key_id: Annotated[str, Meta(pattern="^[A-Za-z0-9]{16,128}$")]
    secret_access_key: Annotated[str, Meta(pattern="^[A-Za-z0-9/+=]{16,128}$")]
    session_token: Annotated[str, Meta(pattern="^[A-Za-z0-9/+=_-]{1,8192}$")] | None = None


class BedrockDriver(AttachedDriver):
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "bedrock"
    options = BedrockOptions
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
    ) -> BedrockEngine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, or the secret is no key.
        """
        given = msgspec.convert({"base_url": address, **options}, BedrockOptions)
        if given.auth == "access_key" and secret is not None:
            prover: SigningKey | str = signing_key(secret, given.region)
        else:
            prover = bearer(token_of(secret))
        return BedrockEngine(
            EngineInfo(name=self.name, context_tokens=context_tokens, whole=True, can=_READS),
            address.rstrip("/"),
            model=model,
            prover=prover,
            pin=pinned(address, allow_private=allow_private),
            cohort=self.cohort,
        )


_READS: frozenset[Ability] = READS_ALL | {"redacted_thinking"}


def signing_key(secret: Secret, region: str) -> SigningKey:
    """
    Raises:
        OperationFailed: The secret is no access key.
    """
    try:
        key = msgspec.json.decode(secret.reveal(), type=AccessKey)
    except (msgspec.DecodeError, RecursionError):
        raise OperationFailed(_NO_KEY) from None
    token = None if key.session_token is None else Secret(key.session_token)
    return SigningKey(
        access_key_id=key.access_key_id,
        secret=Secret(key.secret_access_key),
        region=region,
        service="bedrock",
        session_token=token,
    )


_NO_KEY = (
    'the secret of this engine must be JSON with "AccessKeyId" and "SecretAccessKey", and "SessionToken" '
    "where there is one, as `aws configure export-credentials` prints it"
)
