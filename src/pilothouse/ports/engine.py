"""
Engines: how to start one kind of model server, and how to speak to it.

A driver knows the engine and not where it runs (that is `ports.target`). It is
found by its name in a deployment's `engine`.
"""

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from msgspec import Struct

from pilothouse.domain.chat import Ability, Chunk, Embeddings, EmbedRequest, GenerateRequest
from pilothouse.domain.model import Artifact
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Health, Load
from pilothouse.kit.http1.client import Timeouts


class Machine(Struct, frozen=True, kw_only=True):
    """What a driver may size itself by: this machine's processors and free memory."""

    cpus: int
    memory_available_bytes: int
    workers: int = 1


class Launch(Struct, frozen=True, kw_only=True):
    """
    How a replica is started: plain values, so that a target elsewhere can do it.

    `argv` never holds a secret. `config` is written to a 0600 file whose path
    takes the place of `{config}` in argv; `{socket}`, in argv or in config, is
    the private socket's path. `env` is the whole environment: nothing inherits.
    `{log}` in argv is the file that the process keeps its output in and bounded,
    and `--replica {name} --home-id {home}` is how a target finds it again.
    """

    argv: tuple[str, ...]
    config: str = ""
    env: dict[str, str]
    address: str
    """`unix:{socket}`, or where an attached engine already runs."""
    slots: int
    context_tokens: int
    memory_bytes: int
    """Expected peak, for the check before the start."""
    ready_timeout_s: float = 120.0


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
    ) -> AsyncGenerator[Chunk, None]:
        """
        Yield chunks until the answer ends; the last carries the usage.

        Closing the generator (or cancelling its task) frees the slot within 1 s.
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


class EngineDriver(Protocol):
    """One kind of engine. Both methods are pure; `launch` is absent where it only attaches."""

    name: str
    launches: bool

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
        token_file: str = "",
        allow_private: bool = False,
    ) -> Engine:
        """Speak to an engine; `allow_private` lets an attached one be at a private address."""
        ...
