"""Small stand-ins for the control plane's unit tests: engines that obey, a shelf, a driver."""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from pilothouse.control.world import World
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import EngineUnavailable, NotFound, OperationFailed
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.model import Artifact, ModelFormat, ModelHeader, ModelVersion
from pilothouse.domain.options import CommonOptions
from pilothouse.domain.spec import DeploymentSpec, ModelSpec
from pilothouse.domain.status import Health, Load, Progress, Replica
from pilothouse.kit.log import Log
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import (
    KEEPS_ALL,
    NO_OPTIONS,
    EngineAbility,
    EngineInfo,
    Installed,
    Launch,
    Machine,
    Placement,
)
from pilothouse.testing.memory_target import MemoryProcess, MemoryTarget

HEADER = ModelHeader(architecture="llama", context_tokens=512, quantization="Q4", parameters=1)


def model(name: str = "m", source: str = "file:/m.gguf", digest: str = "sha256:aa") -> ModelVersion:
    return ModelVersion(
        name=name,
        version="1",
        digest=digest,
        format="gguf",
        bytes=1,
        quantization="Q4",
        context_tokens=512,
        licence="",
        source=source,
        source_digest=digest,
        header=HEADER,
        created_at=7.0,
    )


class FakeEngine:
    """Does as its fields say."""

    def __init__(self, health: Health | None = None) -> None:
        self.info = EngineInfo(name="fake", slots=True)
        self.answer = health or Health(ok=True)
        self.busy: Load | None = Load()
        self.probes = 0
        self.looks = 0
        self.is_closed = False

    def stream(
        self, request: GenerateRequest, placement: Placement, *, deadline_s: float
    ) -> AsyncGenerator[Chunk, None]:
        raise NotImplementedError

    async def complete(self, request: GenerateRequest, placement: Placement, *, deadline_s: float) -> Chunk:
        raise NotImplementedError

    async def embed(self, request: EmbedRequest, *, deadline_s: float) -> Embeddings:
        raise NotImplementedError

    async def load(self) -> Load:
        self.looks += 1
        if self.busy is None:
            raise EngineUnavailable("no answer")
        return self.busy

    async def health(self, *, deadline_s: float) -> Health:
        self.probes += 1
        return self.answer

    async def aclose(self) -> None:
        self.is_closed = True


class FakeDriver:
    """Engines by address, made on demand; new ones are healthy at once."""

    options = CommonOptions
    abilities: frozenset[EngineAbility] = frozenset()
    cannot = KEEPS_ALL
    formats: frozenset[ModelFormat] = frozenset({"gguf"})

    def __init__(self, name: str = "llama.cpp") -> None:
        self.name = name
        self.engines: dict[str, FakeEngine] = {}
        self.refusal = ""
        self.memory_bytes = 1
        self.default = Health(ok=True)

    def installed(self) -> Installed:
        return Installed(ok=True)

    def launch(self, name: str, spec: DeploymentSpec, artifact: Artifact, machine: Machine) -> Launch:
        if self.refusal:
            raise OperationFailed(self.refusal)
        return Launch(
            argv=("engine",),
            env={},
            address=f"unix:/{name}",
            slots=4,
            context_tokens=512,
            memory_bytes=self.memory_bytes,
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
    ) -> FakeEngine:
        return self.engines.setdefault(address, FakeEngine(self.default))


class FakeShelf:
    """Has every model whose source was not said to be missing."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.lost: set[str] = set()
        """Digests whose files are gone until the next pull."""
        self.pulled: list[str] = []

    async def pull_declared(
        self, name: str, declared: ModelSpec, *, progress: Callable[[Progress], None]
    ) -> ModelVersion:
        progress(Progress(stage="download", done_bytes=1, total_bytes=2))
        if self.error:
            raise self.error
        self.pulled.append(declared.source)
        self.lost.clear()
        return model(name, declared.source)

    async def load(self, model: ModelVersion) -> Artifact:
        if self.error:
            raise self.error
        if model.digest in self.lost:
            raise NotFound("no such blob")
        return Artifact(name=model.name, digest=model.digest, path="/m.gguf", bytes=1, header=HEADER)


class StrictTarget(MemoryTarget):
    """Starting one of a name that lives is an error here, and every stop is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = 0
        self.stopped: list[str] = []

    @property
    def replicas(self) -> dict[str, MemoryProcess]:
        return self.machine.processes

    async def start(self, name: str, launch: Launch, **how: str) -> Replica:
        if name in self.replicas:
            raise AssertionError(f"two processes of the name {name}")
        self.starts += 1
        return await super().start(name, launch, **how)

    async def stop(self, name: str, *, grace_s: float) -> None:
        self.stopped.append(name)
        await super().stop(name, grace_s=grace_s)

    def kill(self, name: str) -> None:
        self.machine.end(name, "killed by signal 9")


class TickingClock:
    """Time moves when it is told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Silent(Log):
    """Remembers events instead of writing them."""

    def __init__(self) -> None:
        super().__init__("test")
        self.events: list[tuple[str, dict[str, object]]] = []

    def event(self, name: str, level: object = "info", /, **fields: object) -> None:
        self.events.append((name, fields))


class Fakes:
    """A world of fakes, each at hand."""

    def __init__(self, target: StrictTarget | None = None) -> None:
        self.target = target or StrictTarget()
        self.driver = FakeDriver()
        self.shelf = FakeShelf()
        self.clock = TickingClock()
        self.log = Silent()
        self.world = World(
            targets={"local": self.target},
            drivers={"llama.cpp": self.driver},
            shelf=self.shelf,
            machine=lambda: Machine(cpus=2, memory_available_bytes=1 << 33),
            clock=self.clock,
            log=self.log,
        )
