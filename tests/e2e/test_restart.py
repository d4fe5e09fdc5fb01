"""The real program is restarted under load: nobody is refused, cut, forgotten or counted twice."""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from program_rig import Program, program
from quick_upstream import quick_upstream

pytestmark = pytest.mark.engine

SPEC = """
version: 1
models:
  smollm2: {{source: "file:{model}"}}
deployments:
  chat: {{model: smollm2, engine_options: {{context_tokens: 1024, slots: 2}}}}
  quick: {{engine: openai, provider_model: quick,
           engine_options: {{base_url: "http://127.0.0.1:{port}/v1", allow_private_network: true}}}}
endpoints:
  chat: {{routes: [{{deployment: chat}}]}}
  quick: {{routes: [{{deployment: quick}}]}}
"""


@dataclass
class Load:
    """Clients that ask until told to stop: some keep their connection, some come anew each time."""

    server: Program
    ids: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def ask_on(self, *, keeps: bool, path: str = "/v1/chat/completions") -> None:
        connection = self._connection()
        while not self.stop.is_set():
            try:
                self.ids.append(_ask(connection, self.server.admin_key, path))
            except (OSError, http.client.HTTPException, AssertionError) as exc:
                self.failures.append(f"{path} {type(exc).__name__}: {exc}")
                connection.close()
            if not keeps:
                connection.close()
            time.sleep(0.005)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.server.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)


def _ask(connection: http.client.HTTPConnection, key: str, path: str) -> str:
    headers = {"authorization": f"Bearer {key}"}
    if path.startswith("/v1"):
        body = json.dumps({"model": "quick", "messages": [{"role": "user", "content": "Well?"}]})
        connection.request("POST", path, body, {**headers, "content-type": "application/json"})
    else:
        connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text[:300]
    return answer.headers["x-request-id"] if path.startswith("/v1") else ""


def _stream(server: Program, said: list[bytes]) -> None:
    """One answer of the real engine that takes longer than the restart's first half."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    question = {"role": "user", "content": "Write the numbers from one to a thousand."}
    body = {"model": "chat", "stream": True, "max_tokens": 400, "temperature": 0, "messages": [question]}
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {server.admin_key}"}
    )
    said.extend(connection.getresponse())
    connection.close()


def _get(server: Program, path: str) -> dict:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("GET", path, headers={"authorization": f"Bearer {server.admin_key}"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def _records(server: Program) -> Counter[str]:
    found: Counter[str] = Counter()
    cursor = ""
    while True:
        page = _get(server, "/admin/v1/records?limit=200" + (f"&cursor={cursor}" if cursor else ""))
        found.update(item["id"] for item in page["items"])
        cursor = page["next"]
        if not cursor:
            return found


def _wait(is_so: Callable[[], bool], *, within_s: float) -> None:
    give_up_at = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)


def test_a_restart_under_load_fails_nobody_and_loses_nothing(smollm2_gguf: Path, tmp_path: Path) -> None:
    with (
        quick_upstream() as port,
        program(tmp_path / "home", SPEC.format(model=smollm2_gguf, port=port), "--workers", "2") as server,
    ):
        _wait(lambda: _get(server, "/admin/v1/status")["phase"] == "ready", within_s=60)
        engines = {one["pid"] for one in _get(server, "/admin/v1/replicas")["items"] if one["pid"]}
        load, said = Load(server), []
        threads = [
            *(threading.Thread(target=load.ask_on, kwargs={"keeps": keeps}) for keeps in (True, True, False)),
            threading.Thread(target=load.ask_on, kwargs={"keeps": True, "path": "/metrics"}),
            threading.Thread(target=_stream, args=(server, said)),
        ]
        for thread in threads:
            thread.start()
        _wait(lambda: len(load.ids) > 50 and bool(said), within_s=30)

        argv = [str(Path(sys.executable).with_name("pilothouse")), "restart", "--home", str(server.home)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)

        threads[-1].join(60)
        asked = len(load.ids)
        _wait(lambda: len(load.ids) > asked + 50, within_s=30)
        load.stop.set()
        for thread in threads:
            thread.join(60)
        assert done.returncode == 0, done.stderr
        assert Counter(load.failures) == {}
        assert said[-2:] == [b"data: [DONE]\n", b"\n"]
        wanted = {one for one in load.ids if one}
        _wait(lambda: wanted <= _records(server).keys(), within_s=20)
        assert set(_records(server).values()) == {1}
        assert {one["pid"] for one in _get(server, "/admin/v1/replicas")["items"] if one["pid"]} == engines
        assert _get(server, "/admin/v1/status")["phase"] == "ready"
