"""
The registry: model versions as the store records them, and the way in for new ones.

`control.models` brings files and checks them, in threads; here is what is
recorded of them, and who may be removed. It is the control loop's shelf, and
what the admin API calls models.
"""

import asyncio
import threading
from collections.abc import Callable

from pilothouse.control.models import Models
from pilothouse.control.transact import Transact
from pilothouse.domain.errors import Conflict, NotFound, OperationFailed
from pilothouse.domain.model import Artifact, ModelVersion
from pilothouse.domain.spec import ModelSpec, Spec
from pilothouse.domain.status import Progress
from pilothouse.ports.store import UnitOfWork

Tell = Callable[[Progress], None]


class Registry:
    """
    Args:
        declared: The present spec: what it deploys is not removed.
        arrived: Called with each version that was pulled.
        in_use: Digests of the models that replicas run.
    """

    def __init__(
        self,
        models: Models,
        transact: Transact,
        *,
        declared: Callable[[], Spec],
        arrived: Callable[[ModelVersion], None],
        in_use: Callable[[], frozenset[str]],
    ) -> None:
        self._models = models
        self._transact = transact
        self._declared = declared
        self._arrived = arrived
        self._in_use = in_use

    async def versions(self) -> list[ModelVersion]:
        """By name, newest first."""
        return await self._transact(lambda unit: unit.models.all())

    async def pull(self, source: str, *, name: str | None, licence: str, progress: Tell) -> ModelVersion:
        """Fetch, check and record. Cancelling ends the download; what it brought is continued next time."""
        known = next((model for model in await self.versions() if model.source == source), None)
        is_cancelled = threading.Event()

        def tell(stage: str, done_bytes: int, total_bytes: int) -> None:
            if is_cancelled.is_set():
                raise OperationFailed("the pull was cancelled")
            progress(Progress(stage=stage, done_bytes=done_bytes, total_bytes=total_bytes))

        try:
            model = await asyncio.to_thread(
                self._models.pull, source, name=name, licence=licence, progress=tell, known=known
            )
        except asyncio.CancelledError:
            is_cancelled.set()  # the thread sees it at its next word
            raise
        await self._transact(lambda unit: unit.models.put(model))
        self._arrived(model)
        return model

    async def pull_declared(self, name: str, declared: ModelSpec, *, progress: Tell) -> ModelVersion:
        return await self.pull(declared.source, name=name, licence=declared.licence, progress=progress)

    async def load(self, model: ModelVersion) -> Artifact:
        return await asyncio.to_thread(self._models.load, model)

    async def remove(self, name: str) -> list[ModelVersion]:
        """
        Forget all versions of that name and delete the files that nobody else needs.

        Raises:
            NotFound: There is none.
            Conflict: A deployment uses it, or a replica still runs it.
        """
        all_versions = await self.versions()
        versions = [model for model in all_versions if model.name == name]
        if not versions:
            raise NotFound(f"there is no model {name[:63]!r}; see: pilothouse model list")
        users = [key for key, deployment in self._declared().deployments.items() if deployment.model == name]
        if users:
            raise Conflict(f"model {name} is used by deployment {users[0]}; change that first")
        in_use = self._in_use()
        if any(model.digest in in_use for model in versions):
            raise Conflict(f"a replica still runs model {name}; it ends within a minute, then try again")

        def forget(unit: UnitOfWork) -> None:
            for model in versions:
                unit.models.remove(model.name, model.version)

        await self._transact(forget)
        keep = {model.digest for model in all_versions if model.name != name} | in_use
        await asyncio.to_thread(self._models.collect, keep)
        return versions
