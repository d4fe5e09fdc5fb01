"""
The whole program: `pilothouse up` in a home of its own, for a `with` block.

It is started as a person starts it and watched from outside: through its JSON
events, its admin API and /proc. Nothing of it is imported.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from build import BUILD
from rig.report import tell

PILOTHOUSE = Path(sys.executable).with_name("pilothouse")
PULLED_HOME = BUILD / "home"
"""A home that keeps the default model between runs, so that only the first one downloads it."""
START_S = 600.0
"""The first start downloads the model."""


class Server:
    """A running server, and how to ask it."""

    def __init__(self, process: "subprocess.Popen[str]", home: Path, ready: dict[str, Any]) -> None:
        self.process, self.home, self.ready = process, home, ready
        self.url: str = ready["url"]
        self.port = int(self.url.rsplit(":", 1)[1].split("/")[0])
        self.admin_key = Path(ready["admin_key_file"]).read_text().strip()

    def state(self) -> dict[str, Any]:
        """What `server.json` says: pids of supervisor, controller and workers."""
        return dict(json.loads((self.home / "server.json").read_text()))

    def get(self, path: str) -> Any:
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Bearer {self.admin_key}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def replica(self) -> dict[str, Any]:
        """The first ready replica."""
        return next(
            dict(item) for item in self.get("/admin/v1/replicas")["items"] if item["state"] == "ready"
        )


@contextmanager
def server(home: Path, *, config: Path | None = None, port: int = 0) -> Iterator[Server]:
    """A server from its start to its end, engines included."""
    started = start(home, config=config, port=port)
    try:
        yield started
    finally:
        stop(home)
        finish(started.process)


def start(home: Path, *, config: Path | None = None, port: int = 0) -> Server:
    """
    Start one and wait for its `ready` event.

    Raises:
        RuntimeError: It did not become ready; the message holds what it said.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    argv = [str(PILOTHOUSE), "up", "--home", str(home), "--port", str(port), "--json"]
    argv += ["--config", str(config)] if config else []
    log = (home.parent / f"{home.name}.stderr").open("w")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True)
    log.close()
    said: list[str] = []
    for line in process.stdout or ():
        said.append(line)
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if event.get("event") == "ready":
                return Server(process, home, event)
    finish(process)
    raise RuntimeError(f"the server did not become ready:\n{''.join(said[-20:])}")


def stop(home: Path) -> None:
    """`pilothouse down --now`: also ends what a killed server has left."""
    argv = [str(PILOTHOUSE), "down", "--home", str(home), "--now", "--json"]
    subprocess.run(argv, capture_output=True, timeout=180, check=False)


def finish(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    if process.stdout:
        process.stdout.close()


def pulled_home() -> Path:
    """A stopped home that has the default model; downloads it when it is not there yet."""
    if not (PULLED_HOME / "bench-is-pulled").exists():
        tell("pulling the default model, once")
        with server(PULLED_HOME):
            (PULLED_HOME / "bench-is-pulled").touch()
    stop(PULLED_HOME)
    return PULLED_HOME


def wait_until(claim: str, holds: Any, *, timeout_s: float, every_s: float = 0.02) -> float:
    """Wait for `holds()`; the seconds that it took. TimeoutError names the claim."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"after {timeout_s:.0f} s it still was not so that {claim}")
        time.sleep(every_s)
    return time.monotonic() - began
