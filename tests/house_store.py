"""A store that tests of the control plane can count and break: in memory, or another behind it."""

from collections.abc import Callable
from typing import TypeVar

from pilothouse.control.transact import Transact
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.record import InferenceRecord
from pilothouse.ports.store import SealedRecord, UnitOfWork
from pilothouse.testing.memory_store import MemoryStore

T = TypeVar("T")


class HouseStore:
    """Is a `Transact`. `broken` makes every transaction fail."""

    def __init__(self, inner: Transact | None = None) -> None:
        self.broken = False
        self.transactions = 0
        self._memory = MemoryStore()
        self._inner = inner

    async def __call__(self, work: Callable[[UnitOfWork], T], /, *, urgent: bool = False) -> T:
        if self.broken:
            raise StoreUnavailable("the store is gone")
        self.transactions += 1
        if self._inner is not None:
            return await self._inner(work, urgent=urgent)
        with self._memory.unit(urgent=urgent) as unit:
            return work(unit)

    async def add_record(self, record: InferenceRecord, content: bytes | None = None) -> None:
        row = SealedRecord(record=record, content=content, sealing_key="" if content is None else "k1")
        await self(lambda unit: unit.records.insert_many([row]))
