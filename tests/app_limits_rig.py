"""A whole program with limits, before an upstream by script: what tests of limits ask it."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from program_rig import Program, program
from upstream_rig import Upstream, upstream, whole

ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
    }
).encode()
STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
COST = 100
"""Of each answer, in millionths of a dollar, by the prices below."""
SPEC = """
version: 1
deployments:
  mock:
    engine: openai
    provider_model: m
    engine_options: {{base_url: "http://127.0.0.1:{port}/v1", allow_private_network: true}}
endpoints:
  chat: {{routes: [{{deployment: mock}}], limits: {{max_tokens: 50}}}}
"""
PRICES = 'as_of: "2026-01-01"\nmodels: {m: {input_usd: 1, output_usd: 1}}\n'


@pytest.fixture(scope="module")
def mock_port() -> Iterator[int]:
    """A provider that answers at once, in a thread of its own."""

    async def script(talk: Upstream, _: int) -> None:
        while True:
            asked = await talk.request()
            if b'"stream":true' in asked:  # the probe of its health
                await talk.say(whole(STREAM, headers=b"content-type: text/event-stream\r\n"))
            else:
                await talk.say(whole(ANSWER, headers=b"content-type: application/json\r\n"))

    async def run() -> None:
        async with upstream(script) as listening:
            ports.append(listening.port)
            began.set()
            await ends.wait()

    ports: list[int] = []
    began, ends = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="provider")
    thread.start()
    began.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(ends.set)
    thread.join(10)
    loop.close()


@contextmanager
def two_workers(tmp_path: Path, port: int, *more: str) -> Iterator[Program]:
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    options = ("--workers", "2", "--prices", str(prices), *more)
    with program(tmp_path / "home", SPEC.format(port=port), *options) as running:
        yield running


def call(running: Program, method: str, path: str, body: object = None, *, key: str = "") -> tuple[int, dict]:
    """One request on a connection of its own, which lands on either worker."""
    request = urllib.request.Request(
        running.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": f"Bearer {key or running.admin_key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


def new_key(running: Program, **limits: object) -> str:
    status, made = call(running, "POST", "/admin/v1/keys", {"team": "default", "limits": limits})
    assert status in (200, 201), made
    time.sleep(1.1)  # every worker knows it within a second
    return str(made["key"])


def chats(running: Program, key: str, count: int, *, at_once: int = 8) -> list[str]:
    """The codes of so many chats; `cut` where the connection broke."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 40}

    def one(_: int) -> str:
        try:
            status, said = call(running, "POST", "/v1/chat/completions", body, key=key)
        except (OSError, HTTPException):
            return "cut"
        return "ok" if status == 200 else str(said["error"]["code"])

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, range(count)))


_AT_REST = 10
"""Looks without a change, three seconds: what was answered last is drained a second later."""


def spent(running: Program, key: str) -> int:
    """What the store says that a key cost, when nothing is under way any more."""
    key_id = key.split("_")[1]
    seen, same = -1, 0
    for _ in range(100):
        time.sleep(0.3)
        _, report = call(running, "GET", "/admin/v1/usage?by=key")
        lines = [item for item in report["lines"] if item["group"] == key_id]
        now = lines[0]["sums"]["cost_micro_usd"] if lines else 0
        same = same + 1 if now == seen else 0
        if same >= _AT_REST:
            return now
        seen = now
    raise AssertionError("the usage did not come to rest")


def worker_pids(running: Program) -> list[int]:
    _, status = call(running, "GET", "/admin/v1/status")
    return [one["pid"] for one in status["processes"] if one["role"] == "worker"]
