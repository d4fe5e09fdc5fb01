"""
TensorFlow models: a SavedModel behind TensorFlow Serving's protocol, our own host or any server.

Belongs here: how a replica is started and who is spoken to. Does not: how an answer
is made of predictions (`_tensorflow_engine`), the host itself (`_tensorflow_child`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pilothouse.adapters.engines import _tensorflow_child
from pilothouse.adapters.engines._attached import bearer, pinned, token_of
from pilothouse.adapters.engines._environment import declared, look, python_of
from pilothouse.adapters.engines._extras import over_grpc
from pilothouse.adapters.engines._launching import check_fits, threads_of, world
from pilothouse.adapters.engines._tensorflow_engine import Reading, TensorFlowEngine
from pilothouse.adapters.engines._tensorflow_rest import HostServer, RestServer
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import AttachOptions, Count, read_options
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import (
    NO_OPTIONS,
    EngineAbility,
    EngineInfo,
    Installed,
    Launch,
    Machine,
    Promise,
)
from pilothouse.wire.tensorflow.chat import ChatTexts
from pilothouse.wire.tensorflow.signature import INPUT_ROLES, OUTPUT_ROLES

VERSION = "2.21.0"
PROCESS_BYTES = 900_000_000
"""TensorFlow before any weights: 583 MB were measured, and its buffers come on top."""
DEFAULT_CONTEXT_TOKENS = 2048
DEFAULT_SLOTS = 8
READY_TIMEOUT_S = 300.0
"""Importing TensorFlow took 12 s on an idle machine, and minutes on one that had much else to do."""
PIECE_TOKENS = 16
"""At 2 ms a token a hang-up is noticed within 32 ms, and a call's own cost is spread over 16 tokens."""


class TensorFlowOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: tensorflow`."""

    protocol: Literal["rest", "grpc"] = "rest"
    """`grpc` needs the extra of that name; `base_url` is the host and port of that then, and https is TLS."""
    signature: str = ""
    """The model's signature that generates text; by default `generate`, else `serving_default`."""
    inputs: dict[str, str] = {}  # noqa: RUF012 - msgspec gives each a copy
    """Names of its input tensors, where they are not called as what they stand for."""
    outputs: dict[str, str] = {}  # noqa: RUF012 - as above
    """Names of its output tensors, likewise."""
    chat: ChatTexts | None = None
    """How a chat becomes the text that the model continues: `user`, `assistant`, `system`, `reply`."""
    piece_tokens: Annotated[int, Meta(ge=1, le=4096)] = PIECE_TOKENS
    """Tokens of one call, where the signature has a state to go on from; the first ones are smaller."""
    threads: Count = 0
    """Processor threads of our own host; by default one less than there are, for the gateway's sake."""


class TensorFlowDriver:
    """Implements `ports.engine.EngineDriver`."""

    name = "tensorflow"
    options = TensorFlowOptions
    abilities: frozenset[EngineAbility] = frozenset({"launch", "attach", "stream", "cancel"})
    formats: frozenset[ModelFormat] = frozenset({"savedmodel"})
    cannot: Mapping[Promise, str] = MappingProxyType(
        {
            "chat": "a SavedModel has no template for chats: its deployment gives one, "
            "or they are refused with the way there",
            "cancel_prompt": "a prediction that began is not broken off: a prompt is read to its end",
        }
    )
    environment = declared("tensorflow", f"tensorflow-cpu=={VERSION}")

    def __init__(self, *, cohort: Cohort | None = None) -> None:
        self._cohort = cohort

    def installed(self) -> Installed:
        return look(self.name, package="tensorflow_cpu", known=VERSION)

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,
    ) -> Launch:
        options = read_options(TensorFlowOptions, spec.engine_options)
        reading = _reading(options)
        if options.protocol == "grpc":
            over_grpc("_tensorflow_grpc")
        need = PROCESS_BYTES + 2 * artifact.bytes
        check_fits(need, machine, f"TensorFlow and twice its {artifact.bytes / 1e6:.0f} MB")
        threads = threads_of(options.threads, machine)
        config = {
            "model_path": artifact.path,
            "socket": "{socket}",
            "protocol": options.protocol,
            "threads": threads,
            "slots": options.slots or DEFAULT_SLOTS,
        }
        return Launch(
            argv=(python_of(self.name), "-I", _tensorflow_child.__file__, "{config}"),
            config=msgspec.json.encode(config).decode(),
            env=world(
                threads,
                TF_CPP_MIN_LOG_LEVEL="2",
                CUDA_VISIBLE_DEVICES="-1",
                TF_ENABLE_ONEDNN_OPTS="0",  # sums in one order, so that a seed gives one answer
            ),
            address="unix:{socket}",
            slots=0,
            context_tokens=options.context_tokens or DEFAULT_CONTEXT_TOKENS,
            memory_bytes=need,
            ready_timeout_s=READY_TIMEOUT_S,
            options={"protocol": options.protocol, **msgspec.to_builtins(reading)},
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
    ) -> TensorFlowEngine:
        """
        Raises:
            OperationFailed: The address, the secret or a tensor's role is not one, or the extra is missing.
        """
        info = EngineInfo(name=self.name, context_tokens=context_tokens)
        is_grpc = options.get("protocol") == "grpc"
        if address.startswith("unix:"):
            ours = _tensorflow_child.MODEL
            host = (
                over_grpc("_tensorflow_grpc").GrpcHost(address, model=ours)
                if is_grpc
                else HostServer(address, model=ours, cohort=self._cohort)
            )
            return TensorFlowEngine(info, host, msgspec.convert(options, Reading), host=host)
        reading = _reading(read_options(TensorFlowOptions, options))
        credential, pin = bearer(token_of(secret)), pinned(address, allow_private=allow_private)
        server = (
            over_grpc("_tensorflow_grpc").GrpcServer(address, model=model, credential=credential, pin=pin)
            if is_grpc
            else RestServer(
                address.rstrip("/"), model=model, credential=credential, pin=pin, cohort=self._cohort
            )
        )
        return TensorFlowEngine(info, server, reading)


def _reading(options: TensorFlowOptions) -> Reading:
    for side, named, roles in (
        ("inputs", options.inputs, INPUT_ROLES),
        ("outputs", options.outputs, OUTPUT_ROLES),
    ):
        if unknown := sorted(named.keys() - roles):
            raise OperationFailed(
                f"engine_options.{side}.{unknown[0]}: no such role; there are {', '.join(sorted(roles))}"
            )
    return Reading(
        signature=options.signature,
        inputs=options.inputs,
        outputs=options.outputs,
        chat=options.chat,
        piece_tokens=options.piece_tokens,
    )
