"""
One generation that several identical requests share.

The first caller generates in its own task and says into a `Flight` what it
gets; those who come meanwhile follow it, each at its own pace from one list of
chunks. So a slow reader, the first one too, slows nobody else. A leader whose
client hung up goes on while somebody follows, and is cancelled by the last one
who leaves.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.record import CacheResult
from pilothouse.domain.snapshot import Snapshot
from pilothouse.gateway.semantic import Question
from pilothouse.kit.cohort import Pause
from pilothouse.kit.http1.responder import Responder

if TYPE_CHECKING:
    from pilothouse.gateway.call import Call

MAX_FOLLOWERS: Final = 1000
"""Of one generation; who comes after them generates for himself."""


class Flight:
    """
    Args:
        leader: The way back to who generates.
        land: What to call with the whole answer.
        identity: What was going to answer, as `domain.caching.identity_of` says it.
    """

    __slots__ = (
        "_free", "_leader", "_waiting", "answer", "chunks", "deployment", "error", "followers",
        "identity", "is_over", "key", "land", "question", "result", "snapshot",
    )  # fmt: skip

    def __init__(
        self, key: bytes, leader: Responder, land: "Land", *, deployment: str, identity: str
    ) -> None:
        self.key = key
        self.land = land
        self.result: CacheResult = "hit"
        """What those who follow are answered with."""
        self.question: Question | None = None
        """To find this answer by in other words, where the endpoint wants that."""
        self.snapshot: Snapshot | None = None
        """What the identity was taken from."""
        self.deployment = deployment
        self.identity = identity
        self.chunks: list[Chunk] = []
        """All that was said so far, for every reader; bounded as any answer is (`generate`)."""
        self.followers = 0
        self.is_over = False
        self.answer: CachedAnswer | None = None
        self.error: PilothouseError | None = None
        self._leader: Responder | None = leader
        self._free: asyncio.Future[None] | None = None
        """While the leader waits for its slow client."""
        self._waiting: list[Pause] = []
        leader.is_needed = self._is_needed

    def _is_needed(self) -> bool:
        return self.followers > 0 and not self.is_over

    # the leader

    def add(self, chunk: Chunk) -> None:
        """Say it to all who follow, now or later."""
        self.chunks.append(chunk)
        if self._waiting:
            self._tell()

    def end(self, *, answer: CachedAnswer | None = None, error: PilothouseError | None = None) -> None:
        """It is over: with an answer, or with an error, which may be None when the leader was cancelled."""
        if self.is_over:
            return
        self.is_over = True
        self.answer, self.error = answer, error
        if self._leader is not None:
            self._leader.is_needed = None
            self._leader = None
        if self._waiting:
            self._tell()

    async def pace(self, responder: Responder) -> None:
        """Let the leader's client take what it got, unless others follow: they do not wait for it."""
        if not self.followers:
            self._free = asyncio.get_running_loop().create_future()
            try:
                responder.on_drained(self._set_free)
                await self._free
            finally:
                self._free = None

    def _set_free(self) -> None:
        if self._free is not None and not self._free.done():
            self._free.set_result(None)

    # who follows

    def join(self) -> None:
        self.followers += 1
        self._set_free()

    def leave(self) -> None:
        """The last one takes a leader along whose own client is gone."""
        self.followers -= 1
        if not self.followers and not self.is_over and self._leader is not None and self._leader.is_gone:
            self._leader.abandon()

    async def news(self) -> None:
        """Wait until there is more, or it is over. Bound the wait yourself."""
        if self.is_over:
            return
        pause = Pause()
        self._waiting.append(pause)
        await pause

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for pause in waiting:
            pause.end()


class Land(Protocol):
    def __call__(self, call: "Call", deltas: Sequence[Delta]) -> None: ...
