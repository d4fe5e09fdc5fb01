"""Four workers look like one: the same readiness, one sum of metrics, and a revoked key that none takes."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from program_rig import Program, program
from quick_upstream import quick_upstream

SPEC = """
version: 1
deployments:
  quick: {{engine: openai, provider_model: quick,
           engine_options: {{base_url: "http://127.0.0.1:{port}/v1", allow_private_network: true}}}}
endpoints:
  quick: {{routes: [{{deployment: quick}}]}}
"""
WORKERS = 4
CONNECTIONS = 16
"""Kept open, so that every worker has some of them."""


class Client:
    def __init__(self, server: Program) -> None:
        parts = urlsplit(server.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)

    def get(self, path: str, key: str) -> tuple[int, str]:
        return self._said("GET", path, key, None)

    def ask(self, key: str) -> tuple[int, str]:
        body = json.dumps({"model": "quick", "messages": [{"role": "user", "content": "Well?"}]})
        return self._said("POST", "/v1/chat/completions", key, body)

    def post(self, path: str, key: str, body: dict) -> tuple[int, str]:
        return self._said("POST", path, key, json.dumps(body))

    def delete(self, path: str, key: str) -> tuple[int, str]:
        return self._said("DELETE", path, key, None)

    def _said(self, method: str, path: str, key: str, body: str | None) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()

    def close(self) -> None:
        self._connection.close()


@contextmanager
def clients(server: Program) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        made = [Client(server) for _ in range(CONNECTIONS)]
        for one in made:
            stack.callback(one.close)
        yield made


def test_four_workers_look_like_one(tmp_path: Path) -> None:
    with (
        quick_upstream() as port,
        program(tmp_path / "home", SPEC.format(port=port), "--workers", str(WORKERS)) as server,
        clients(server) as crowd,
    ):
        first = crowd[0]
        _until(lambda: first.get("/admin/v1/status", server.admin_key)[0] == 200)
        assert {one.get("/readyz", "")[0] for one in crowd} == {200}
        status = json.loads(first.get("/admin/v1/status", server.admin_key)[1])
        assert len(status["workers"]) == WORKERS
        assert min(worker["connections"] for worker in status["workers"]) >= 3, status["workers"]

        first.post("/admin/v1/teams", server.admin_key, {"name": "crowd"})
        _, text = first.post("/admin/v1/keys", server.admin_key, {"team": "crowd", "role": "developer"})
        made = json.loads(text)
        _until(lambda: all(one.ask(made["key"])[0] == 200 for one in crowd))
        before = _requests(first, server)
        for _ in range(5):
            assert {one.ask(made["key"])[0] for one in crowd} == {200}
        assert _requests(first, server) - before == 5 * CONNECTIONS

        began = time.monotonic()
        assert first.delete(f"/admin/v1/keys/{made['id']}", server.admin_key)[0] == 200
        _until(lambda: {one.ask(made["key"])[0] for one in crowd} == {401})
        assert time.monotonic() - began < 1.5, "a second, and the time to ask all"


def _requests(client: Client, server: Program) -> float:
    """Answered requests, summed over all workers, as Prometheus would read it."""
    _, text = client.get("/metrics", server.admin_key)
    lines = [line for line in text.splitlines() if line.startswith("pilothouse_requests_total{")]
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if 'endpoint="quick"' in line and 'code="ok"' in line
    )


def _until(is_so, *, within_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
