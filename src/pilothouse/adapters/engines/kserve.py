"""
Any server of the Open Inference Protocol (KServe's v2) that already runs: Pilothouse attaches to it.

Triton, MLServer, KServe's own runtimes and others speak it, over HTTP or gRPC. It
knows tensors and not text, so the deployment says what its tensors are called.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from pilothouse.adapters.engines._attached import AttachedDriver, bearer, pinned, token_of
from pilothouse.adapters.engines._extras import over_grpc
from pilothouse.adapters.engines._kserve import Settings
from pilothouse.adapters.engines._kserve_http import KServeEngine
from pilothouse.domain.options import AttachOptions, read_options
from pilothouse.domain.tensors import Scalar
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import NO_OPTIONS, Engine, EngineAbility, EngineInfo
from pilothouse.wire.kserve_v2.text import PARAMETERS, Convention
from pilothouse.wire.kserve_v2.turns import Turns

_Name = Annotated[str, Meta(min_length=1)]
OUTPUTS = {"text": "text_output", "embedding": "embedding", "tensors": ""}


class KServeOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: kserve`."""

    base_url: _Name
    """Where the server runs, before its `/v2`; with `protocol: grpc` the host and port of that."""
    protocol: Literal["rest", "grpc"] = "rest"
    """`grpc` needs the extra of that name; https is TLS for both."""
    task: Literal["text", "embedding", "tensors"] = "text"
    """What the model makes of a text: text, or a vector. `tensors`: it is asked at `/v2` alone."""
    api: Literal["infer", "generate"] = "infer"
    """Over REST: `infer` asks with tensors (MLServer, KServe), `generate` with plain JSON (Triton)."""
    stream: bool = True
    """Ask for pieces: `generate_stream`, or `ModelStreamInfer`. Where the server has neither, say false."""
    model_version: str = ""
    """"" lets the server choose."""
    text_input: _Name = "text_input"
    """Name of the tensor, or field, that takes the text."""
    text_output: str = ""
    """Of the one that gives text or vectors; by default `text_output`, or `embedding`."""
    parameters: dict[str, str] | None = None
    """
    Fields of a request that are passed on, with the server's names for them; any other is refused by its
    name. By default `max_tokens`, `temperature`, `top_p`, `top_k` and `seed`, called the same.
    """
    parameters_as: Literal["parameters", "tensors"] = "parameters"
    """How: as parameters of the request, or each as a tensor (with `api: generate`, beside the text)."""
    constants: dict[str, Scalar] = field(default_factory=dict)
    """Sent with every request in the same way, such as `{exclude_input_in_output: true}`."""
    finish_reason: str = "finish_reason"
    """Output or parameter of an answer that says why it ended: `stop` or `length`."""
    prompt_tokens: str = "prompt_tokens"
    """Output or parameter that counts the prompt's tokens."""
    completion_tokens: str = "completion_tokens"
    """And the answer's. Without both, limits and prices count each character as a token."""
    batched: bool = False
    """The model's tensors have a first dimension for the batch, as Triton's with `max_batch_size`."""
    chat: Turns | None = None
    """How a chat becomes a prompt; without it or `messages_input` chats are refused."""
    messages_input: str = ""
    """Name of an input that takes the messages as JSON, where the server has its model's own template."""


class KServeDriver(AttachedDriver):
    """Implements `ports.engine.EngineDriver`, without `launch`."""

    name = "kserve"
    options = KServeOptions
    abilities: frozenset[EngineAbility] = frozenset({"attach", "stream", "embeddings"})

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> Engine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, the secret is no bearer token, or the
                extra is missing.
        """
        asked = read_options(KServeOptions, {"base_url": address, **options})
        info = EngineInfo(name=self.name, context_tokens=context_tokens, whole=True)
        settings = Settings(
            model=model,
            version=asked.model_version,
            task=asked.task,
            convention=_convention(asked),
            streams=asked.stream,
        )
        pin, credential = pinned(address, allow_private=allow_private), bearer(token_of(secret))
        if asked.protocol == "grpc":
            engine: Engine = over_grpc("_kserve_grpc").KServeGrpcEngine(
                info, address, settings, credential=credential, pin=pin
            )
            return engine
        return KServeEngine(
            info,
            address.rstrip("/"),
            settings,
            api=asked.api,
            credential=credential,
            pin=pin,
            cohort=self.cohort,
        )


def _convention(asked: KServeOptions) -> Convention:
    return Convention(
        text_input=asked.text_input,
        text_output=asked.text_output or OUTPUTS[asked.task],
        parameters=PARAMETERS if asked.parameters is None else asked.parameters,
        parameters_as=asked.parameters_as,
        constants=asked.constants,
        finish_reason=asked.finish_reason,
        prompt_tokens=asked.prompt_tokens,
        completion_tokens=asked.completion_tokens,
        is_batched=asked.batched,
        turns=asked.chat,
        messages_input=asked.messages_input,
    )
