"""Somebody who asks a server that runs: one question, or several at once until told to stop."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from program_rig import Program

QUESTION = "What is the capital of France? Answer in one word."


class Client:
    def __init__(self, program: Program, endpoint: str) -> None:
        self._host, self._port = program.url.removeprefix("http://").split(":")
        self._headers = {"authorization": f"Bearer {program.admin_key}", "content-type": "application/json"}
        self._endpoint = endpoint

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self._host, int(self._port), timeout=60)
        try:
            connection.request(
                method, path, body=None if body is None else json.dumps(body), headers=self._headers
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def ask(self, question: str = QUESTION, *, max_tokens: int = 8) -> tuple[int, Any]:
        body = {
            "model": self._endpoint,
            "max_tokens": max_tokens,
            "temperature": 0,
            "messages": [{"role": "user", "content": question}],
        }
        return self.call("POST", "/v1/chat/completions", body)

    @contextmanager
    def load(self, at_once: int, *, rates: bool = False) -> "Iterator[Counter[object]]":
        """
        Ask all the time, from several threads; the outcomes are counted by status.

        Args:
            rates: Each answer gets a thumb, up when it knows the capital.
        """
        outcomes: Counter[object] = Counter()
        ending = threading.Event()

        def work() -> None:
            while not ending.is_set():
                try:
                    status, answer = self.ask()
                except (OSError, http.client.HTTPException) as exc:
                    outcomes[type(exc).__name__] += 1
                    continue
                outcomes[status] += 1
                if rates and status == 200:
                    text = answer["choices"][0]["message"]["content"]
                    body = {"id": answer["id"], "name": "thumbs", "value": "Paris" in text}
                    outcomes["rated", self.call("POST", "/v1/feedback", body)[0]] += 1

        threads = [threading.Thread(target=work) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        try:
            yield outcomes
        finally:
            ending.set()
            for thread in threads:
                thread.join(60)


def wait_until(claim: Any, *, what: str, within_s: float) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not claim():
        assert time.monotonic() - began < within_s, f"no {what} within {within_s} s"
        time.sleep(0.05)
    return time.monotonic() - began
