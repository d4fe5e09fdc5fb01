"""Keys in memory: the fake of `ports.keys`. What it wraps is gone with the process."""

from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.seal import SealBroken, Sealer, bind, key_id_of, new_key


class MemoryKeys:
    def __init__(self) -> None:
        self._sealers: dict[str, Sealer] = {}
        self._retired: set[str] = set()
        self._add()

    def current_id(self) -> str:
        return [key_id for key_id in self._sealers if key_id not in self._retired][-1]

    def wrap(self, key: bytes, *, context: bytes) -> bytes:
        return self._sealers[self.current_id()].seal(key, bind("wrap") + context)

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        try:
            return self._sealers[key_id_of(wrapped)].open(wrapped, bind("wrap") + context)
        except (KeyError, SealBroken) as exc:
            raise OperationFailed(
                f"a wrapped key does not open: {exc}. fix: use the keys it was made with"
            ) from exc

    def retire(self, key_id: str) -> None:
        if key_id not in self._sealers:
            raise OperationFailed(f"no wrapping key {key_id!r}. fix: it has {sorted(self._sealers)}")
        if key_id == self.current_id():
            self._add()
        self._retired.add(key_id)

    def _add(self) -> None:
        key_id = f"kek{len(self._sealers) + 1}"
        self._sealers[key_id] = Sealer(key_id, new_key())
