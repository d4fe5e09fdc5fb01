"""
The whole program for a gateway bench, with every policy on that this version has.

`pilothouse up` on the mock, as four deployments of one endpoint. Its workers have
the measured core and alone are charged; supervisor and controller share the other
core with mock and load, and drain the journal meanwhile. Which policies there
are is read from the shapes of the spec, so that the bench grows with them.
"""

import json
import os
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from pilothouse.domain import spec as shapes
from rig.machine import LOAD_CORE, MEASURED_CORE, PRIORITY, raised
from rig.peers import Peer
from rig.report import tell
from rig.server import PILOTHOUSE, Server, finish, stop, wait_until

ENDPOINT = "mock"
REPLICAS = 4
NEVER_REACHED = {
    "rpm": 1_000_000_000,
    "tpm": 1_000_000_000_000,
    "parallel": 100_000,
    "budget": "1000000usd/month",
}
"""Limits that are counted and never hit."""
KEY_LIMITS = (
    "--rpm",
    "1000000000",
    "--tpm",
    "1000000000000",
    "--parallel",
    "100000",
    "--budget",
    "1000000usd/month",
)
START_S = 60.0


class House(Peer):
    """A running program: `pid` is its first worker, which is charged when there is one."""

    def __init__(self, name: str, server: Server, headers: list[str], policies: list[str]) -> None:
        self.server = server
        self.workers: list[int] = server.state()["pids"]["workers"]
        self.policies = policies
        super().__init__(name, server.port, self.workers[0], headers=headers)


def policies() -> list[str]:
    """What can be switched on in a spec of this version."""
    found = [name for name in NEVER_REACHED if name in shapes.LimitsSpec.__struct_fields__]
    if "cache" in shapes.EndpointSpec.__struct_fields__:
        found.append("cache")
    return found


def spec(upstream: int, *, everything: bool = True) -> dict[str, Any]:
    options = {
        "base_url": f"http://127.0.0.1:{upstream}/v1",
        "allow_private_network": True,
        "max_inflight": 4096,
    }
    names = [f"mock-{n}" for n in range(REPLICAS if everything else 1)]
    endpoint: dict[str, Any] = {"routes": [{"deployment": name, "weight": 25} for name in names]}
    if everything:
        here = policies()
        limits = {name: NEVER_REACHED[name] for name in here if name in NEVER_REACHED}
        if limits and "per_subject" in shapes.LimitsSpec.__struct_fields__:
            limits["per_subject"] = dict(limits)
        endpoint["limits"] = limits
        if "cache" in here:
            endpoint["cache"] = {"exact_ttl": "1h"}
    return {
        "version": 1,
        "deployments": {
            name: {"engine": "openai", "provider_model": "mock", "engine_options": options} for name in names
        },
        "endpoints": {ENDPOINT: endpoint},
    }


@contextmanager
def house(
    upstream: int, *, workers: int = 1, everything: bool = True, flags: tuple[str, ...] = (), name: str = ""
) -> Iterator[House]:
    """
    Args:
        everything: All policies; else keys and records alone.
        flags: More options of `up`.
    """
    with TemporaryDirectory(prefix="ph-bench-") as folder:
        home, config = Path(folder) / "home", Path(folder) / "spec.yaml"
        config.write_text(json.dumps(spec(upstream, everything=everything)))  # JSON is YAML
        server = _start(home, config, workers, flags)
        try:
            wait_until("all is ready", lambda: _is_ready(server), timeout_s=START_S, every_s=0.2)
            key, limited = _key(server, everything=everything)
            headers = [f"Authorization: Bearer {key}", "x-pilothouse-subject: somebody"]
            made = House(name or "everything on", server, headers, policies() if everything else [])
            if limited:
                made.policies.append("key and team limits")
            _place(made)
            yield made
        finally:
            stop(home)
            finish(server.process)


def _start(home: Path, config: Path, workers: int, flags: tuple[str, ...]) -> Server:
    argv = [str(PILOTHOUSE), "up", "--home", str(home), "--port", "0", "--json", "--config", str(config)]
    argv += ["--workers", str(workers), *flags]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    for line in process.stdout or ():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "ready":
            return Server(process, home, event)
    finish(process)
    raise RuntimeError("the server did not become ready")


def _is_ready(server: Server) -> bool:
    try:
        return bool(server.get("/admin/v1/status")["phase"] == "ready")
    except (OSError, urllib.error.URLError):  # the admin API is still being loaded
        return False


def _key(server: Server, *, everything: bool) -> tuple[str, bool]:
    """A key of a team, with limits where this version has them."""
    at = ["--home", str(server.home), "--json"]
    subprocess.run([PILOTHOUSE, "team", "create", "bench", *at], capture_output=True, check=False)
    made = None
    if everything:
        made = subprocess.run(
            [PILOTHOUSE, "key", "create", "--team", "bench", *KEY_LIMITS, *at],
            capture_output=True,
            check=False,
        )
    limited = made is not None and made.returncode == 0
    if made is None or made.returncode:
        made = subprocess.run(
            [PILOTHOUSE, "key", "create", "--team", "bench", *at], capture_output=True, check=True
        )
    time.sleep(1.0)  # all workers know it within a second
    return str(json.loads(made.stdout)["key"]), limited


def _place(made: House) -> None:
    """Workers to the measured core and above the rest of the machine; all others to the other core."""
    state = made.server.state()["pids"]
    for pid in (state["supervisor"], state["controller"]):
        psutil.Process(pid).cpu_affinity([LOAD_CORE])
    for pid in made.workers:
        psutil.Process(pid).cpu_affinity([MEASURED_CORE])
        if raised():
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(PRIORITY))
    tell(f"{made.name}: on are {', '.join(made.policies) or 'keys and records alone'}")
