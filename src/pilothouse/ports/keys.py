"""Keys: who wraps sealing keys. Works for a KMS that never releases a key."""

from typing import Protocol


class Keys(Protocol):
    def current_id(self) -> str:
        """Id of the key that `wrap` uses now."""
        ...

    def wrap(self, key: bytes, *, context: bytes) -> bytes:
        """Wrap a 32-byte key; `context` is bound to it and needed again. The id is part of the result."""
        ...

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        """
        Raises:
            OperationFailed: Another context, an altered value, or a key that is not here.
        """
        ...

    def retire(self, key_id: str) -> None:
        """No new wraps with it; unwrapping goes on until its file is removed."""
        ...
