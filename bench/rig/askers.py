"""
People who ask one endpoint all the time, each over a new connection, and what became of every request.

A request is `refused` when nobody listened, so that it was never sent; `lost` when it was sent and no
whole answer came back; else it is counted under its status.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rig.server import Server

PAUSE_S = 0.05
"""After what was no answer, so that a closed door is not hammered."""


class Askers:
    def __init__(self, server: Server, endpoint: str, *, at_once: int, max_tokens: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0
        """Of all requests, answered or not."""
        self.refused_at: list[float] = []
        """When nobody listened; monotonic."""
        self._server = server
        self._body = json.dumps(
            {
                "model": endpoint,
                "max_tokens": max_tokens,
                "temperature": 0,
                "messages": [{"role": "user", "content": "Hi"}],
            }
        )
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(at_once)]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Wait for the last answer."""
        self._ending.set()
        for thread in self._threads:
            thread.join(90)

    @property
    def answered(self) -> int:
        return self.outcomes["200"]

    @property
    def failed(self) -> int:
        """All but the answered and those that nobody was there to take."""
        return sum(count for what, count in self.outcomes.items() if what not in ("200", "refused"))

    def _ask_on(self) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            outcome = self._ask()
            took_s = time.monotonic() - began
            with self._lock:
                self.outcomes[outcome] += 1
                self.slowest_s = max(self.slowest_s, took_s)
                if outcome == "refused":
                    self.refused_at.append(began)
            if outcome != "200":
                self._ending.wait(PAUSE_S)

    def _ask(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        try:
            connection.connect()
        except OSError:
            return "refused"
        try:
            headers = {"authorization": f"Bearer {self._server.admin_key}"}
            connection.request("POST", "/v1/chat/completions", self._body, headers)
            answer = connection.getresponse()
            answer.read()
            return str(answer.status)
        except (OSError, http.client.HTTPException):
            return "lost"
        finally:
            connection.close()


@contextmanager
def asking(server: Server, endpoint: str, *, at_once: int, max_tokens: int) -> Iterator[Askers]:
    """They begin now; the block begins when ten were answered, and ends when the last one is."""
    askers = Askers(server, endpoint, at_once=at_once, max_tokens=max_tokens)
    askers.begin()
    try:
        ends = time.monotonic() + 60
        while askers.answered < 10 and time.monotonic() < ends:
            time.sleep(0.02)
        yield askers
    finally:
        askers.end()
