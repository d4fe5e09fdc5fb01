"""Targets: where replicas run. Knows where, not what."""

from typing import Protocol

from pilothouse.domain.status import Replica
from pilothouse.ports.engine import Launch


class Target(Protocol):
    """
    Idempotent by replica name; after a restart `observe` alone finds everything.

    `observe` reports a process as "starting" as long as it lives: whether it is
    ready is for an inference probe to say. A dead one is "failed" with its exit
    status as the reason, until `stop` clears it away.
    """

    name: str

    async def observe(self) -> list[Replica]: ...

    async def start(
        self,
        name: str,
        launch: Launch,
        *,
        deployment: str,
        engine: str,
        model_digest: str,
        model_version: str,
    ) -> Replica:
        """Start it, or return the one of that name that already lives."""
        ...

    async def stop(self, name: str, *, grace_s: float) -> None:
        """
        TERM, wait `grace_s`, KILL the whole process group, verify that it is gone, clear its traces.

        Draining is the caller's: by now nobody should be sending it requests.
        """
        ...

    async def logs(self, name: str, *, lines: int) -> list[str]:
        """The newest lines, oldest first; an unknown name is NotFound."""
        ...
