"""The whole server from the command line: real processes, real engine, real model."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pilothouse.app.leftovers import processes_of
from pilothouse.config import make_settings
from pilothouse.kit.processes import identify

pytestmark = [pytest.mark.engine, pytest.mark.slow]
PILOTHOUSE = "import sys; from pilothouse.cli.main import main; main(sys.argv[1:])"


class House:
    """A home and the command line on it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.settings = make_settings(home=str(folder / "home"))
        self.config = folder / "pilothouse.yaml"
        spec: dict[str, Any] = {
            "version": 1,
            "models": {"smollm2": {"source": f"file:{model}", "licence": "Apache-2.0"}},
            "deployments": {"smollm2": {"model": "smollm2"}},
            "endpoints": {"smollm2": {"routes": [{"deployment": "smollm2"}], "limits": {"max_tokens": 24}}},
        }
        self.config.write_text(json.dumps(spec))

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", PILOTHOUSE, *arguments, "--home", self.settings.home]
        return subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False, input=stdin)

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def up(self, *flags: str) -> Any:
        return self.json("up", "--port", "0", "--detach", "--config", str(self.config), *flags)

    @property
    def state(self) -> Any:
        return json.loads(self.settings.state_file.read_text())

    def replica(self) -> Any:
        return self.json("get", "replicas")["items"][0]

    def ask(self) -> int:
        """Status of a small question, on a connection of its own."""
        host, port = self.state["url"].removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        body = {"model": "smollm2", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}
        key = self.settings.admin_key_file.read_text().strip()
        try:
            connection.request(
                "POST",
                "/v1/chat/completions",
                body=json.dumps(body),
                headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            )
            return connection.getresponse().status
        finally:
            connection.close()

    def close(self) -> None:
        self.run("down", "--now")
        assert processes_of(self.settings.run_path) == []
        shutil.rmtree(self.settings.run_path, ignore_errors=True)


@pytest.fixture
def house(tmp_path: Path, smollm2_gguf: Path) -> Iterator[House]:
    house = House(tmp_path, smollm2_gguf)
    yield house
    house.close()


def wait_for(is_so: Callable[[], bool], *, what: str, within_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < give_up_at, f"no {what} within {within_s} s"
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """A zombie has ended, whoever has still to look at it."""
    return identify(pid) is not None


def answers(house: House) -> bool:
    try:
        return house.ask() == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_the_curl_line_works_when_pasted(house: House) -> None:
    started = house.run("up", "--port", "0", "--detach", "--config", str(house.config))
    line = next(line for line in started.stdout.splitlines() if line.startswith("curl "))

    pasted = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True)

    assert json.loads(pasted.stdout)["choices"][0]["message"]["content"]
    assert "demonstration model" in started.stdout


def test_what_people_do_first_works(house: House, record_property: Callable[[str, object], None]) -> None:
    ready = house.up()
    again = house.run("up", "--port", "0")
    chatted = house.json("chat", "smollm2", "Name three colours.")
    piped = house.run("chat", "smollm2", stdin="Say hello.")
    made = house.json("key", "create", "--team", "default", "--endpoint", "smollm2", "--expires", "1h")
    wait_for(lambda: len(house.json("get", "records")["items"]) >= 2, what="records")
    record = house.json("get", "records", "--limit", "1")["items"][0]
    verified = house.run("model", "verify", "smollm2")
    doctor = house.run("doctor")
    loaded = house.json("bench", "--duration", "2", "--stream", "--max-tokens", "4")
    down = house.run("down")

    assert again.returncode == 6
    assert ready["url"] in again.stderr
    assert ready["endpoints"] == ["smollm2"]
    assert chatted["text"]
    assert chatted["tokens_per_s"] > 0
    assert piped.returncode == 0
    assert "first token" in piped.stderr
    assert made["key"].startswith("ph_")
    assert record["code"] == "ok"
    assert verified.returncode == 0, verified.stderr
    assert "ready" in doctor.stdout
    assert loaded["ok"] >= 1
    assert down.returncode == 0, down.stderr
    assert processes_of(house.settings.run_path) == []
    record_property("note", f"a first start, model file beside it, took {ready['took_s']:.1f} s to ready")


def test_a_killed_worker_is_replaced_and_answers(house: House) -> None:
    house.up()
    first = house.state["pids"]["workers"][0]

    os.kill(first, signal.SIGKILL)

    wait_for(lambda: house.state["pids"]["workers"] not in ([], [first]), what="new worker", within_s=5)
    wait_for(lambda: answers(house), what="answer")


def test_a_killed_controller_leaves_serving_untouched_and_its_engines_to_the_next(house: House) -> None:
    house.up()
    engine = house.replica()["pid"]
    first = house.state["pids"]["controller"]

    os.kill(first, signal.SIGKILL)
    meanwhile = house.ask()

    assert meanwhile == 200
    wait_for(lambda: house.state["pids"]["controller"] not in (0, first), what="new controller", within_s=5)
    wait_for(lambda: house.run("get", "replicas").returncode == 0, what="admin API")
    assert house.replica()["pid"] == engine


def test_after_a_killed_supervisor_the_rest_ends_and_the_next_up_takes_the_engine_over(house: House) -> None:
    house.up()
    engine, family = house.replica()["pid"], house.state["pids"]

    os.kill(family["supervisor"], signal.SIGKILL)
    others = [family["controller"], *family["workers"]]
    wait_for(lambda: not any(lives(pid) for pid in others), what="end of the others", within_s=15)

    assert lives(engine)
    house.up()
    assert house.replica()["pid"] == engine
    assert answers(house)


def test_down_ends_engines_that_a_killed_supervisor_left(house: House) -> None:
    house.up()
    engine = house.replica()["pid"]
    os.kill(house.state["pids"]["supervisor"], signal.SIGKILL)

    down = house.run("down")

    assert down.returncode == 0, down.stderr
    assert "engine" in down.stdout
    assert not lives(engine)


def test_down_now_cuts_a_stream_and_keeps_its_record(house: House) -> None:
    spec = json.loads(house.config.read_text())
    spec["endpoints"]["smollm2"]["limits"]["max_tokens"] = 2000
    house.config.write_text(json.dumps(spec))
    house.up()
    host, port = house.state["url"].removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    message = {"role": "user", "content": "Count from one to a thousand, in words."}
    body = {"model": "smollm2", "stream": True, "max_tokens": 2000, "messages": [message]}
    body |= {"logit_bias": {"0": -100, "2": -100}}  # the model's words for an end: it goes on until it is cut
    key = house.settings.admin_key_file.read_text().strip()
    connection.request(
        "POST",
        "/v1/chat/completions",
        body=json.dumps(body),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    with closing(connection), connection.getresponse() as response:
        response.readline()

        down = house.run("down", "--now")

        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    assert down.returncode == 0, down.stderr
    house.up()
    wait_for(lambda: bool(house.json("get", "records")["items"]), what="record")
    assert house.json("get", "records")["items"][0]["code"] == "client_closed"


def test_a_server_without_endpoints_starts_and_says_what_to_declare(house: House) -> None:
    house.config.write_text("version: 1\n")

    started = house.run("up", "--port", "0", "--detach", "--config", str(house.config))

    assert started.returncode == 0, started.stderr
    assert f"pilothouse apply --home {house.settings.home} -f FILE" in started.stdout


def test_a_start_with_everything_there_is_quick(
    house: House, record_property: Callable[[str, object], None]
) -> None:
    house.up()
    house.run("down")

    took = [house.up()["took_s"]]
    for _ in range(2):
        house.run("down")
        took.append(house.up()["took_s"])

    record_property(
        "note", f"starts with everything there took {took} s to ready (the aim is 3 s on an idle machine)"
    )
    assert min(took) < 15
