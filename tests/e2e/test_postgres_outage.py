"""The whole program with its store in PostgreSQL, which is killed while people ask."""

import json
import time
import urllib.request
from pathlib import Path

import pytest

from controller_rig import spec_of
from fixtures_postgres import PostgresServer
from pilothouse.config import write_spec
from program_rig import Program, program

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def ask(server: Program, text: str) -> int:
    body = {"model": "e", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    request = urllib.request.Request(
        server.url + "/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {server.admin_key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(answer.status)


def readiness(server: Program) -> tuple[int, list[str]]:
    with urllib.request.urlopen(server.url + "/readyz", timeout=10) as answer:
        return answer.status, json.loads(answer.read())["reasons"]


def test_requests_are_served_while_the_database_is_dead_and_recorded_when_it_is_back(
    tmp_path: Path, own_postgres: PostgresServer, smollm2_gguf: Path
):
    where = ("--store", own_postgres.url(), "--set", f"store_password=file:{own_postgres.password_file}")
    with program(tmp_path / "home", write_spec(spec_of(smollm2_gguf)).decode(), *where) as server:
        answered = [ask(server, "before")]
        own_postgres.kill()
        ends = time.monotonic() + 15
        while not (said := readiness(server)[1]):
            assert time.monotonic() < ends
            time.sleep(0.1)
        answered += [ask(server, f"without {n}") for n in range(5)]
        assert readiness(server) == (200, said)
        assert "the store is out of reach" in said[0]

        own_postgres.start()
        ends = time.monotonic() + 30
        while own_postgres.execute("SELECT count(*) FROM records WHERE code = 'ok'") != [(6,)]:
            assert time.monotonic() < ends
            time.sleep(0.2)
        while readiness(server)[1]:
            assert time.monotonic() < ends
            time.sleep(0.2)
        answered.append(ask(server, "after"))

    assert answered == [200] * 7
