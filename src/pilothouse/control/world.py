"""What the control loop observes and acts on, as one value that its parts share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pilothouse.domain.events import Occurrence
from pilothouse.domain.model import Artifact, ModelVersion
from pilothouse.domain.spec import ModelSpec
from pilothouse.domain.status import Progress, Replica
from pilothouse.kit.clock import Clock
from pilothouse.kit.log import Log
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import EngineDriver, Machine
from pilothouse.ports.target import Target


class Shelf(Protocol):
    """Where models are fetched to and loaded from."""

    async def pull_declared(
        self, name: str, declared: ModelSpec, *, progress: Callable[[Progress], None]
    ) -> ModelVersion: ...

    async def load(self, model: ModelVersion) -> Artifact:
        """
        Verified: the file has the digest that was recorded.

        Raises:
            NotFound: Its file is gone; it must be pulled again.
            ModelFileRefused: Its file was changed.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class World:
    targets: Mapping[str, Target]
    drivers: Mapping[str, EngineDriver]
    shelf: Shelf
    machine: Callable[[], Machine]
    """Measures this machine at the moment of a start."""
    clock: Clock
    log: Log
    secret: Callable[[str, Replica], Secret | None] = lambda _name, _replica: None
    """What to speak to that replica with, where its deployment names this secret; "" names none."""
    happened: Callable[[Occurrence], None] = lambda _: None
