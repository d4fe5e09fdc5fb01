"""
Engines: how to start one kind of model server, and how to speak to it.

A driver knows the engine and not where it runs (that is `ports.target`). It is
found by its name in a deployment's `engine`.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

from msgspec import Struct

from pilothouse.domain.chat import Ability, Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import EngineOptions
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Health, Load
from pilothouse.domain.tensors import Inferred, InferRequest
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.secret import Secret

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Machine(Struct, frozen=True, kw_only=True):
    """What a driver may size itself by: this machine's processors and free memory."""

    cpus: int
    memory_available_bytes: int
    workers: int = 1


class Launch(Struct, frozen=True, kw_only=True):
    """
    How a replica is started: plain values, so that a target elsewhere can do it.

    The target makes what has a place, and fills it in: in argv, env, config and
    address `{socket}`, a private socket's path; `{port.NAME}`, a free port of
    loopback for each name in `ports`; `{folder}`, a private folder, the working
    folder too, that holds `files`; `{token_file}`, a file with a random token;
    `{shared_memory}`, what the names of its pieces of shared memory begin with, by
    which they are removed when its processes are gone. In argv and env `{config}` is
    the path of the 0600 file that `config` is written to. In env and config `{token}`
    is the token itself: argv, which everybody can read, never holds a secret.

    The process gets `env` and nothing else of ours. It is ready when a probe has
    its first token (`Engine.health`); it is stopped by TERM, and by KILL of its
    whole group when its grace is over.

    A program of ours that takes `{log}` keeps its output there, bounded, and has
    `--replica {name} --home-id {home}` in argv, by which it is found again. Any
    other program's output and name are kept for it.
    """

    argv: tuple[str, ...]
    config: str = ""
    files: dict[str, str] = {}
    """Text by path in `{folder}`, written as it is before the start."""
    ports: tuple[str, ...] = ()
    env: dict[str, str]
    address: str
    """`unix:{socket}`, or `http://127.0.0.1:{port.http}/v1`."""
    slots: int
    """Requests at once; 0 where the engine queues by itself: `max_inflight` then bounds each worker."""
    context_tokens: int
    memory_bytes: int
    """Expected peak, for the check before the start."""
    ready_timeout_s: float = 120.0
    """Until the first token, beside the time to read the model."""
    options: dict[str, Any] = {}
    """Handed to `connect` for as long as this replica lives."""


class Installed(Struct, frozen=True, kw_only=True):
    """What is here of an engine. `missing` says what is not, `install_command` how to get it."""

    ok: bool
    version: str = ""
    missing: str = ""
    install_command: str = ""


EngineAbility = Literal[
    "attach",
    "launch",
    "stream",
    "cancel",
    "tools",
    "logprobs",
    "lora",
    "embeddings",
    "watermark_bias",
    "slots",
]
"""What people choose an engine by. `cancel`: a hang-up frees its place within 1 s."""


Promise = Literal[
    "completion",
    "chat",
    "pieces",
    "usage",
    "limit",
    "stop",
    "seed",
    "unicode",
    "too_long",
    "side_by_side",
    "queue",
    "cancel",
    "cancel_prompt",
    "deadline",
    "health",
    "dead",
    "no_vectors",
]
"""What `testing.conformance_engine` tries of each engine; there in words."""
KEEPS_ALL: Mapping[Promise, str] = MappingProxyType({})


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What an engine can do. `whole` says that it answers unstreamed and frees the slot at a hang-up."""

    name: str
    context_tokens: int = 0
    whole: bool = False
    slots: bool = False
    """Requests are placed on numbered slots, whose prefix cache is the caller's to share or not."""
    can: frozenset[Ability] = frozenset()
    """What it takes beyond text; a request that needs more is refused before it is sent."""


class Placement(Struct, frozen=True):
    """Where in the engine a request runs. `reuse_prefix` only when the slot last served the same tenant."""

    slot: int | None = None
    reuse_prefix: bool = False


class Chunks(Protocol):
    """An answer as it comes, until it is closed. An asynchronous generator is such a thing."""

    def __aiter__(self) -> AsyncIterator[Chunk]: ...
    def __anext__(self) -> Awaitable[Chunk]: ...
    def aclose(self) -> Awaitable[None]: ...


class Engine(Protocol):
    """
    A running engine at an address.

    Errors are those of `domain.errors`: ContextLengthExceeded with both token
    counts, UpstreamError for a cut or nonsensical answer, EngineUnavailable when
    it cannot be reached, Overloaded when it says so, DeadlineExceeded.
    """

    info: EngineInfo

    def stream(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Chunks:
        """
        Yield chunks until the answer ends; the last carries the usage.

        Closing them (or cancelling its task) frees the slot within 1 s.
        A consumer that is slow stops the engine's socket from being read.

        Args:
            deadline_s: Seconds from now until the whole answer must be there.
            timeouts: How long to wait for each sign of life, where the engine's own will not do.
        """
        ...

    async def complete(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Chunk:
        """Answer whole: one delta a choice, with usage. Only where `info.whole`."""
        ...

    async def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Embeddings: ...

    async def load(self) -> Load: ...

    async def health(self, *, deadline_s: float) -> Health:
        """Produce one token (or one vector): an open port proves nothing."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class TokenCounter(Protocol):
    """An engine that can say how many tokens a prompt has; few can."""

    async def count(self, request: GenerateRequest, *, deadline_s: float) -> int:
        """
        Tokens of the prompt as the model would read it, its template and tools included.

        Raises:
            NotSupported: This one cannot.
        """
        ...


@runtime_checkable
class TensorEngine(Protocol):
    """An engine whose model may have nothing to do with text."""

    async def infer(
        self, request: InferRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Inferred:
        """Tensors out of tensors, as they are."""
        ...


class EngineDriver(Protocol):
    """
    One kind of engine, found by its name in the entry points of `pilothouse.engine`.

    It is made once in each process, with `cohort=` as its only argument: send
    requests with the others of that stage, or ignore it. `launch` is pure, and
    importing its module must not import the engine.
    """

    name: str
    options: type[EngineOptions]
    """What `engine_options` may hold; made from `AttachOptions` where it can attach."""
    abilities: frozenset[EngineAbility]
    formats: frozenset[ModelFormat]
    """Of models that it loads; none where it only attaches."""

    cannot: Mapping[Promise, str]
    """What of the conformance suite it does not keep, and why: the reference prints it."""

    def installed(self) -> Installed:
        """Whether it can be started here: a look at files, no import. What only attaches always can."""
        ...

    def launch(self, name: str, spec: DeploymentSpec, artifact: Artifact, machine: Machine) -> Launch:
        """
        Say how a replica is started.

        Raises:
            OperationFailed: It cannot fit; the message shows the arithmetic.
        """
        ...

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
        Speak to an engine.

        Args:
            model: The name it knows the model by.
            secret: What it asks for, None without one.
            allow_private: An attached one may be at a private address.
            options: Of the deployment, or what `launch` put into `Launch.options`.

        Raises:
            OperationFailed: The address is malformed or not allowed, or the secret is not of its kind.
        """
        ...


@runtime_checkable
class NotedDriver(Protocol):
    """A driver of an engine that people should know something of before they choose it."""

    note: str


class Environment(Struct, frozen=True, kw_only=True):
    """A Python environment of an engine's own, which `pilothouse engine install` makes."""

    folder: str
    packages: tuple[str, ...]
    constraints: str
    """File with the versions that were tried together."""
    exact: bool = False
    """The file's list is installed and nothing that its packages ask for beside it."""


@runtime_checkable
class InstallableDriver(Protocol):
    """A driver whose engine is too heavy for Pilothouse's own environment."""

    environment: Environment
