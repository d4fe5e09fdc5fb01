"""
Answers in Redis or Valkey, for all workers of all machines that have the same keys.

What leaves the process is sealed: the server, and whoever reads its memory or
its disk, learns neither a question nor an answer. The name of an entry is a
keyed hash, and an entry that is moved to another name does not open. A server
that is slow, gone or full of nonsense is a miss, and counted.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable

import msgspec

from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.caching import size_bytes
from pilothouse.domain.chat import Aside
from pilothouse.domain.chunk import Delta
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.resp import RespClient, RespError
from pilothouse.kit.seal import SealBroken, Sealer, bind, key_id_of

MAX_QUEUED = 256
MAX_ENTRY_BYTES = 1024 * 1024
"""Larger answers stay in the worker that has them."""
_RESEAL_AFTER = 2**30
"""Entries under one key: random nonces are safe for four times as many (`kit.seal`)."""
_NAME = b"pilothouse:answer:"


_NULL = msgspec.Raw(b"null")


class _StoredDelta(msgspec.Struct, array_like=True):
    text: str
    index: int
    finish_reason: str | None
    logprobs: msgspec.Raw = _NULL  # msgspec reads Raw alone, not in a union
    aside: Aside | None = None


class _StoredUsage(msgspec.Struct):
    input: int = 0
    output: int = 0
    cached: int = 0


class _Stored(msgspec.Struct, array_like=True):
    team: str
    endpoint: str
    deltas: list[_StoredDelta]
    usage: _StoredUsage
    expires_at: float


# JSON, for log probabilities are carried as the JSON that they are.
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Stored).decode


class RedisCache:
    """
    Args:
        secret: What sealing keys and names are derived from; the same for all who share the cache.
        on_failure: Told of each operation that the server did not do: "get", "put" or "open".
    """

    def __init__(self, client: RespClient, secret: bytes, *, on_failure: Callable[[str], None]) -> None:
        self._client = client
        self._secret = secret
        self._on_failure = on_failure
        self._name_key = _derived(secret, b"names")
        self._sealers: dict[str, Sealer] = {}
        self._own = self._new_sealer()
        self._sealed = 0
        self._queue: deque[tuple[bytes, bytes, int]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def get(self, key: bytes) -> CachedAnswer | None:
        name = self._name(key)
        try:
            sealed = await self._client.call(b"GET", name)
        except RespError:
            self._on_failure("get")
            return None
        if not isinstance(sealed, bytes):
            return None
        try:
            stored = _decode(self._sealer(key_id_of(sealed)).open(sealed, bind("cache") + key))
        except (SealBroken, msgspec.DecodeError, UnicodeDecodeError):
            self._on_failure("open")
            return None
        if stored.expires_at <= time.time() or not stored.deltas:
            return None
        deltas = tuple(
            Delta(
                d.text,
                d.index,
                d.finish_reason,
                None if bytes(d.logprobs) == b"null" else d.logprobs,
                d.aside,
            )
            for d in stored.deltas
        )
        usage = Usage(stored.usage.input, stored.usage.output, stored.usage.cached)
        return CachedAnswer(stored.team, stored.endpoint, deltas, usage, stored.expires_at)

    def put(self, key: bytes, answer: CachedAnswer) -> None:
        left_ms = int((answer.expires_at - time.time()) * 1000)
        if left_ms <= 0 or size_bytes(answer) > MAX_ENTRY_BYTES:
            return
        if len(self._queue) >= MAX_QUEUED:
            self._on_failure("put")
            return
        self._queue.append((key, self._seal(key, answer), left_ms))
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    def drop(self, matches: Callable[[CachedAnswer], bool]) -> None:
        """Nothing: a purge changes the keys that are asked for, and what lies there expires."""

    async def aclose(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._client.aclose()

    async def _write(self) -> None:
        try:
            while self._queue:
                key, sealed, left_ms = self._queue.popleft()
                try:
                    await self._client.call(b"SET", self._name(key), sealed, b"PX", b"%d" % left_ms)
                except RespError:
                    self._on_failure("put")
        finally:
            self._writer = None

    def _seal(self, key: bytes, answer: CachedAnswer) -> bytes:
        self._sealed += 1
        if self._sealed % _RESEAL_AFTER == 0:
            self._own = self._new_sealer()
        deltas = [
            _StoredDelta(
                d.text, d.index, d.finish_reason, _NULL if d.logprobs is None else d.logprobs, d.aside
            )
            for d in answer.deltas
        ]
        usage = _StoredUsage(answer.usage.input, answer.usage.output, answer.usage.cached)
        stored = _Stored(answer.team, answer.endpoint, deltas, usage, answer.expires_at)
        return self._own.seal(_encode(stored), bind("cache") + key)

    def _name(self, key: bytes) -> bytes:
        return _NAME + hmac.digest(self._name_key, key, "sha256").hex().encode()

    def _new_sealer(self) -> Sealer:
        """A key of this process alone, so that many processes together never wear out one."""
        return self._sealer(secrets.token_hex(16))

    def _sealer(self, key_id: str) -> Sealer:
        sealer = self._sealers.get(key_id)
        if sealer is None:
            if len(self._sealers) >= 1000:
                self._sealers.clear()
            sealer = self._sealers[key_id] = Sealer(key_id, _derived(self._secret, key_id.encode()))
        return sealer


def _derived(secret: bytes, purpose: bytes) -> bytes:
    """One extract-and-expand step of HKDF (RFC 5869) for a key of 32 bytes."""
    return hmac.digest(secret, b"pilothouse cache\0" + purpose + b"\x01", hashlib.sha256)
