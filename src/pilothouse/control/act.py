"""
Acting: what the plan says, done in the background, each action a bounded task.

Every action is idempotent, so that one which was cut half-way is simply planned
again. A failure is noted with its reason and the time of the next attempt.
"""

from collections.abc import Callable, Iterable

from pilothouse.control.ability import launch_of
from pilothouse.control.retries import Retries
from pilothouse.control.stock import Stock
from pilothouse.control.world import World
from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound, OperationFailed
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.plan import PullModel, StartReplica, StopReplica, subject
from pilothouse.domain.spec import DeploymentSpec, ModelSpec
from pilothouse.domain.status import Progress
from pilothouse.kit.tasks import Tasks

STOP_GRACE_S = 10.0
"""From TERM to KILL; draining was before."""
START_TIMEOUT_S = 60.0
"""Starting a process, beside the time to check its model's digest; readiness is waited for elsewhere."""
SLOW_DISK_BYTES_PER_S = 20_000_000
STOP_TIMEOUT_S = 60.0
PULL_TIMEOUT_S = 6 * 3600.0
HOPELESS_S = 300.0
"""Pause before the next attempt at what only a correction can help: a wrong name, a bad file."""
_HOPELESS = (InvalidRequest, ModelFileRefused, NotFound)


class Actor:
    """
    Args:
        stock: A pull adds to it; a file that is gone is taken out, so that it is pulled again.
        ended: Called when an action ended, well or not.
    """

    def __init__(self, world: World, stock: Stock, *, retries: Retries, ended: Callable[[], None]) -> None:
        self._world = world
        self._stock = stock
        self._retries = retries
        self._tasks = Tasks(self._failed, on_end=lambda _: ended())
        self.progress: dict[str, Progress] = {}
        """Of pulls in flight, by subject."""
        self._promised: dict[str, int] = {}
        """Memory of replicas that are loading: several started at once must fit together."""

    @property
    def busy(self) -> frozenset[str]:
        return self._tasks.names

    def start(self, action: StartReplica, deployment: DeploymentSpec, model: ModelVersion) -> None:
        async def work() -> None:
            await self._start(action, deployment, model)

        timeout_s = START_TIMEOUT_S + model.bytes / SLOW_DISK_BYTES_PER_S
        self._tasks.start(subject(action), work, timeout_s=timeout_s)

    def stop(self, action: StopReplica, target: str) -> None:
        async def work() -> None:
            self._world.log.event("replica_stopping", name=action.name, reason=action.reason)
            await self._world.targets[target].stop(action.name, grace_s=STOP_GRACE_S)

        self._tasks.start(subject(action), work, timeout_s=STOP_TIMEOUT_S)

    def pull(self, action: PullModel, declared: ModelSpec) -> None:
        key = subject(action)

        async def work() -> None:
            try:
                model = await self._world.shelf.pull_declared(
                    action.name, declared, progress=lambda progress: self.progress.update({key: progress})
                )
            finally:
                self.progress.pop(key, None)
            self._stock.add([model])
            self._retries.succeeded(key)
            self._world.log.event("model_pulled", name=action.name, digest=model.digest, bytes=model.bytes)

        self._tasks.start(key, work, timeout_s=PULL_TIMEOUT_S)

    def settle(self, loading: Iterable[str]) -> None:
        """Only these are still loading: what the others take is in use, and measured as such."""
        kept = {*loading, *self.busy}
        self._promised = {name: size for name, size in self._promised.items() if name in kept}

    def _promise(self, name: str, size_bytes: int, available_bytes: int) -> None:
        """
        Raises:
            OperationFailed: Beside what is loading just now, it would not fit.
        """
        others = sum(size for other, size in self._promised.items() if other != name)
        if others and others + size_bytes > available_bytes:
            raise OperationFailed(
                f"does not fit beside what is loading: it needs {size_bytes / 1e6:.0f} MB, "
                f"the others {others / 1e6:.0f} MB, but {available_bytes / 1e6:.0f} MB of memory are free; "
                "lower replicas.max, context_tokens or slots"
            )
        self._promised[name] = size_bytes

    async def aclose(self, *, timeout_s: float) -> None:
        """Cut what is in flight: the next controller plans it again."""
        await self._tasks.aclose(timeout_s=timeout_s)

    async def _start(self, action: StartReplica, deployment: DeploymentSpec, model: ModelVersion) -> None:
        try:
            artifact = await self._world.shelf.load(model)
        except NotFound:
            # No failed start: the next round pulls it, and what waits for that is started at once.
            self._stock.drop([model])
            self._world.log.event("model_file_gone", "warning", name=model.name, digest=model.digest)
            return
        machine = self._world.machine()
        launch = launch_of(action.name, deployment, artifact, machine, drivers=self._world.drivers)
        self._promise(action.name, launch.memory_bytes, machine.memory_available_bytes)
        replica = await self._world.targets[deployment.target].start(
            action.name,
            launch,
            deployment=action.deployment,
            engine=deployment.engine,
            model_digest=model.digest,
            model_version=f"{model.name}:{model.version}",
        )
        self._world.log.event(
            "replica_started", name=replica.name, pid=replica.pid, slots=launch.slots, digest=model.digest
        )

    def _failed(self, name: str, error: Exception) -> None:
        at_least_s = HOPELESS_S if isinstance(error, _HOPELESS) and name.startswith("pull:") else 0.0
        reason = str(error) or type(error).__name__
        retry = self._retries.failed(name, self._world.clock.monotonic(), reason, at_least_s=at_least_s)
        self._world.log.failure("action_failed", error, subject=name, failures=retry.failures)
