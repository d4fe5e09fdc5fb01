"""
Pulls that people asked for and watch. Few at once, the same ones shared.

A pull belongs to the server and not to the connection that started it.
"""

import asyncio

from pilothouse.domain.errors import Overloaded
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.status import Progress
from pilothouse.http.plane import Models
from pilothouse.kit.log import Log

AT_ONCE = 4
_Key = tuple[str, str | None, str]
"""Source, name and version: what makes two pulls the same."""
_STOP_S = 5.0


class Pull:
    """One pull and how far it is; the progress may be set from another thread."""

    def __init__(self) -> None:
        self.progress = Progress(stage="starting")
        self.task: asyncio.Task[ModelVersion]

    def tell(self, progress: Progress) -> None:
        self.progress = progress


class Pulls:
    def __init__(self, models: Models, log: Log) -> None:
        self._models = models
        self._log = log
        self._running: dict[_Key, Pull] = {}

    def start(
        self, source: str, *, name: str | None, licence: str, version: str = "", card: str = ""
    ) -> Pull:
        """
        Start it, or return the one of the same source, name and version that runs.

        Raises:
            Overloaded: Too many run already.
        """
        key = (source, name, version)
        if running := self._running.get(key):
            return running
        if len(self._running) >= AT_ONCE:
            raise Overloaded(f"{AT_ONCE} pulls run already; wait for one to end", retry_after_s=10.0)
        pull = Pull()
        pull.task = asyncio.create_task(
            self._models.pull(
                source, name=name, licence=licence, progress=pull.tell, version=version, card=card
            )
        )
        self._running[key] = pull
        pull.task.add_done_callback(lambda task: self._end(key, task))
        return pull

    async def aclose(self) -> None:
        """Cancel what runs; what was fetched stays for the next attempt."""
        tasks = [pull.task for pull in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_S)

    def _end(self, key: _Key, task: "asyncio.Task[ModelVersion]") -> None:
        del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.failure("model_pull_failed", error)
