"""
A target whose processes are entries of a table: nothing runs.

`MemoryMachine` is what outlives a restart; make a new `MemoryTarget` over the
same machine to play one. What a process does is its launch's first word:
"obedient", "stubborn" (ignores TERM) or "crashing" (ends with status 3).
"""

from dataclasses import dataclass, field

from msgspec.structs import replace

from pilothouse.domain.errors import NotFound
from pilothouse.domain.status import Replica
from pilothouse.ports.engine import Launch


@dataclass
class MemoryProcess:
    replica: Replica
    behaviour: str
    log: list[str]
    ended: str = ""


@dataclass
class MemoryMachine:
    """Processes by replica name, and every pid that was ever given."""

    processes: dict[str, MemoryProcess] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    next_pid: int = 100
    terminated: list[str] = field(default_factory=list)
    """Names that were asked to end, in this order."""
    killed: list[str] = field(default_factory=list)
    """Names that had to be made to."""

    def end(self, name: str, reason: str) -> None:
        """Have a process die by itself."""
        self.processes[name].ended = reason


class MemoryTarget:
    """Implements `ports.target.Target`."""

    name = "local"

    def __init__(self, machine: MemoryMachine | None = None) -> None:
        self.machine = machine or MemoryMachine()

    async def observe(self) -> list[Replica]:
        return [_seen(process) for _, process in sorted(self.machine.processes.items())]

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
        known = self.machine.processes.get(name)
        if known is not None and not known.ended:
            return known.replica
        pid = self.machine.next_pid
        self.machine.next_pid += 1
        replica = Replica(
            name=name,
            deployment=deployment,
            model_digest=model_digest,
            model_version=model_version,
            state="starting",
            engine=engine,
            address=launch.address.replace("{socket}", f"/memory/{name}.sock"),
            pid=pid,
            started_at=float(pid),
            launch_digest=str(hash(launch.argv)),
            slots=launch.slots,
            context_tokens=launch.context_tokens,
        )
        log = self.machine.logs.setdefault(name, [])
        process = MemoryProcess(replica, launch.argv[0], log)
        log.append("hello")
        if process.behaviour == "crashing":
            log.append("out of luck")
            process.ended = "it ended with status 3; its last line: out of luck"
        self.machine.processes[name] = process
        return replica

    async def stop(self, name: str, *, grace_s: float) -> None:  # noqa: ARG002 - nothing is waited for
        process = self.machine.processes.pop(name, None)
        if process is not None and not process.ended:
            self.machine.terminated.append(name)
            if process.behaviour == "stubborn":
                self.machine.killed.append(name)

    async def logs(self, name: str, *, lines: int) -> list[str]:
        if name not in self.machine.logs:
            raise NotFound(f"there is no log of a replica {name!r}")
        return self.machine.logs[name][-lines:] if lines > 0 else []


def _seen(process: MemoryProcess) -> Replica:
    if not process.ended:
        return process.replica
    return replace(process.replica, state="failed", reason=process.ended)
