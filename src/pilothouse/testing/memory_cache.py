"""A cache in a dict: the fake of `ports.cache`. It forgets nothing by itself."""

import time
from collections.abc import Callable

from pilothouse.domain.cached_answer import CachedAnswer


class FakeCache:
    """`answers` is all that it holds; `asked` the keys that were looked for."""

    def __init__(self) -> None:
        self.answers: dict[bytes, CachedAnswer] = {}
        self.asked: list[bytes] = []

    async def get(self, key: bytes) -> CachedAnswer | None:
        return self.find(key)

    def find(self, key: bytes) -> CachedAnswer | None:
        self.asked.append(key)
        answer = self.answers.get(key)
        return answer if answer is not None and answer.expires_at > time.time() else None

    def put(self, key: bytes, answer: CachedAnswer) -> None:
        self.answers[key] = answer

    def drop(self, matches: Callable[[CachedAnswer], bool]) -> None:
        self.answers = {key: answer for key, answer in self.answers.items() if not matches(answer)}

    async def aclose(self) -> None:
        self.answers.clear()
