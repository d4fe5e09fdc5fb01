"""Batches in the whole program, asked by the published client; a kill loses and repeats nothing."""

import json
import os
import signal
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from openai.types import Batch

from program_rig import program
from quick_upstream import quick_upstream

SPEC = """
version: 1
deployments:
  quick: {{provider_model: quick, engine: openai,
    engine_options: {{base_url: "{url}/v1", allow_private_network: true}}}}
endpoints:
  quick: {{routes: [{{deployment: quick}}], queue: {{size: 500}}}}
"""
ENDED_S = 60.0


BODIES = {
    "/v1/chat/completions": {"model": "quick", "messages": [{"role": "user", "content": "Is it?"}]},
    "/v1/completions": {"model": "quick", "prompt": "Is it?"},
    "/v1/responses": {"model": "quick", "input": "Is it?"},
    "/v1/embeddings": {"model": "quick", "input": "Is it?"},
}


def said(path: str, body: Any) -> Any:
    """What an answer of that route says."""
    if path == "/v1/embeddings":
        return body["data"][0]["embedding"]
    if path == "/v1/responses":
        return body["output"][0]["content"][0]["text"]
    choice = body["choices"][0]
    return choice["text"] if path == "/v1/completions" else choice["message"]["content"]


def lines(count: int, *, model: str = "quick") -> bytes:
    return b"".join(
        json.dumps(
            {
                "custom_id": f"c{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": model, "messages": [{"role": "user", "content": str(number)}]},
            }
        ).encode()
        + b"\n"
        for number in range(count)
    )


def begin(client: openai.OpenAI, data: bytes, path: str = "/v1/chat/completions") -> Batch:
    file = client.files.create(file=("in.jsonl", BytesIO(data)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint=cast("Any", path),
        completion_window="24h",
        metadata={"a": "b"},
    )


def until(client: openai.OpenAI, batch: Batch, is_so: Callable[[Batch], bool]) -> Batch:
    ends = time.monotonic() + ENDED_S
    while True:
        assert time.monotonic() < ends, batch
        try:
            batch = client.batches.retrieve(batch.id)
        except openai.APIError:  # somebody was just killed
            continue
        if is_so(batch):
            return batch
        time.sleep(0.05)


def results(client: openai.OpenAI, file_id: str | None) -> list[dict]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_openais_client_hands_in_a_batch_and_reads_its_answers(home: Path):
    with (
        quick_upstream() as upstream,
        program(home, SPEC.format(url=f"http://127.0.0.1:{upstream}")) as running,
        openai.OpenAI(base_url=running.url + "/v1", api_key=running.admin_key) as client,
    ):
        batch = begin(client, lines(20) + lines(1, model="none").replace(b'"c0"', b'"bad"'))
        done = until(client, batch, lambda one: one.status in ("completed", "failed"))

        assert done.status == "completed"
        assert done.request_counts is not None
        assert (done.request_counts.total, done.request_counts.completed) == (21, 20)
        answered = results(client, done.output_file_id)
        assert sorted(one["custom_id"] for one in answered) == sorted(f"c{n}" for n in range(20))
        assert answered[0]["response"]["body"]["choices"][0]["message"]["content"] == "Yes."
        (bad,) = results(client, done.error_file_id)
        assert (bad["custom_id"], bad["response"]["body"]["error"]["code"]) == ("bad", "model_not_found")
        assert [one.id for one in client.batches.list()] == [batch.id]
        assert len(list(client.files.list())) == 3
        assert client.files.delete(batch.input_file_id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(batch.input_file_id)
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)


def test_a_batch_asks_whatever_a_live_request_asks(home: Path):
    with (
        quick_upstream() as upstream,
        program(home, SPEC.format(url=f"http://127.0.0.1:{upstream}")) as running,
        openai.OpenAI(base_url=running.url + "/v1", api_key=running.admin_key) as client,
    ):
        for path, body in BODIES.items():
            line = {"custom_id": path, "method": "POST", "url": path, "body": body}
            batch = begin(client, json.dumps(line).encode(), path)
            done = until(client, batch, lambda one: one.status in ("completed", "failed"))

            (answered,) = results(client, done.output_file_id)
            expected = [0.5, -0.5] if path == "/v1/embeddings" else "Yes."
            assert said(path, answered["response"]["body"]) == expected


def test_a_response_in_a_batch_goes_on_from_no_earlier_one(home: Path):
    with (
        quick_upstream() as upstream,
        program(home, SPEC.format(url=f"http://127.0.0.1:{upstream}")) as running,
        openai.OpenAI(base_url=running.url + "/v1", api_key=running.admin_key) as client,
    ):
        path = "/v1/responses"
        body = {**BODIES[path], "previous_response_id": "resp_1"}
        line = {"custom_id": "1", "method": "POST", "url": path, "body": body}
        batch = begin(client, json.dumps(line).encode(), path)
        done = until(client, batch, lambda one: one.status in ("completed", "failed"))

        assert done.status == "failed"
        assert done.errors is not None
        (fault,) = done.errors.data or []
        assert (fault.line, fault.param) == (1, "body.previous_response_id")


@pytest.mark.parametrize("victim", ["controller", "workers"])
def test_whoever_is_killed_no_line_is_lost_and_none_is_answered_twice(home: Path, victim: str):
    count = 2000
    with (
        quick_upstream() as upstream,
        program(home, SPEC.format(url=f"http://127.0.0.1:{upstream}")) as running,
        openai.OpenAI(base_url=running.url + "/v1", api_key=running.admin_key, max_retries=20) as client,
    ):
        batch = begin(client, lines(count))
        for share in (0.1, 0.4):
            until(client, batch, lambda one, share=share: one.request_counts.completed > share * count)
            pids = json.loads((home / "server.json").read_text())["pids"]
            for pid in [pids["controller"]] if victim == "controller" else pids["workers"]:
                os.kill(pid, signal.SIGKILL)
        done = until(client, batch, lambda one: one.status == "completed")

        assert (done.request_counts.completed, done.request_counts.failed) == (count, 0)
        answered = [one["custom_id"] for one in results(client, done.output_file_id)]
        assert sorted(answered) == sorted(f"c{n}" for n in range(count))
