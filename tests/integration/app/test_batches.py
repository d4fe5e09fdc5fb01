"""Batches in the whole program, asked by the published client; a kill loses and repeats nothing."""

import json
import os
import signal
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

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


def begin(client: openai.OpenAI, data: bytes) -> Batch:
    file = client.files.create(file=("in.jsonl", BytesIO(data)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
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
