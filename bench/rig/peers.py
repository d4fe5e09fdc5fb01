"""
The peers: bare proxies as a measure of the machine, and gateways that do a part of what Pilothouse does.

Each runs on the measured core with one thread where it can be told so, keeps its
upstream connections alive, and does not hold back small writes. Their versions
are in `bench/peers/setup.sh`.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rig.instruments import running
from rig.machine import MEASURED_CORE, free_port, pinned
from rig.report import tell

PEERS = Path(__file__).parents[1] / "peers"


class Peer:
    """A running proxy: where it listens, the process to charge, and how it wants to be asked."""

    def __init__(
        self,
        name: str,
        port: int,
        pid: int,
        *,
        model: str = "mock",
        path: str = "/v1/chat/completions",
        headers: Sequence[str] = (),
    ) -> None:
        self.name, self.port, self.pid = name, port, pid
        self.model, self.path, self.headers = model, path, list(headers)


@contextmanager
def haproxy(upstream: int, folder: Path) -> Iterator[Peer | None]:
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        tell("haproxy is not installed: no ratio to it (bench/peers/setup.sh installs it)")
        yield None
        return
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(_filled("haproxy.cfg", port, upstream))
    with running(pinned(MEASURED_CORE, [program, "-db", "-f", str(config)])) as process:
        wait_until_open(port)
        yield Peer("haproxy", port, process.pid)


@contextmanager
def envoy(upstream: int, folder: Path) -> Iterator[Peer | None]:
    program = next((PEERS / "envoy").glob(".venv/bin/envoy"), None)
    if program is None:
        tell("envoy is not installed: no ratio to it (bench/peers/setup.sh installs it)")
        yield None
        return
    port = free_port()
    config = folder / "envoy.yaml"
    config.write_text(_filled("envoy.yaml", port, upstream))
    argv = [
        str(program),
        "-c",
        str(config),
        "--concurrency",
        "1",
        "--log-level",
        "error",
        "--disable-hot-restart",
    ]
    with running(pinned(MEASURED_CORE, argv), stderr=subprocess.DEVNULL) as process:
        wait_until_open(port)
        yield Peer("envoy", port, process.pid)


@contextmanager
def vllm_router(upstream: int, folder: Path) -> Iterator[Peer | None]:
    """The router of vLLM's production stack, in Rust: round robin, no keys, no limits."""
    argv = ["vllm-router", "--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"]
    port = free_port()
    more = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    metrics = ["--prometheus-port", str(free_port()), "--prometheus-host", "127.0.0.1"]
    with _program("vllm-router", [*argv, *more, *metrics], folder) as pid:
        yield None if pid is None else _opened(Peer("vllm-router", port, pid))


_TENSORZERO = """
import asyncio, sys, tensorzero
async def main():
    gateway = await tensorzero._start_http_gateway(
        config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=True)
    print(gateway.base_url, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@contextmanager
def tensorzero(upstream: int, folder: Path) -> Iterator[Peer | None]:
    """TensorZero's gateway, in Rust, as its own client starts it; observability is off."""
    config = folder / "tensorzero.toml"
    config.write_text(_filled("tensorzero.toml", 0, upstream))
    with _program("tensorzero", ["python", "-c", _TENSORZERO, str(config)], folder) as pid:
        if pid is None:
            yield None
            return
        said = folder / "tensorzero.log"
        url = wait_for_line(said, "http://")
        place = urlsplit(url)
        path, model = f"{place.path}/chat/completions", "tensorzero::model_name::mock"
        yield Peer("tensorzero", place.port or 0, pid, model=model, path=path)


@contextmanager
def litellm(upstream: int, folder: Path) -> Iterator[Peer | None]:
    """LiteLLM's proxy: one worker, a master key, no database. Its byte code must be compiled."""
    config, port = folder / "litellm.yaml", free_port()
    config.write_text(_filled("litellm.yaml", port, upstream))
    argv = ["litellm", "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with _program("litellm", [*argv, "--num_workers", "1"], folder) as pid:
        if pid is None:
            yield None
            return
        yield _opened(Peer("litellm", port, pid, headers=["Authorization: Bearer sk-bench"]), timeout_s=90.0)


@contextmanager
def _program(name: str, argv: list[str], folder: Path) -> Iterator[int | None]:
    """A peer out of its own virtual environment; None when that is not there."""
    program = PEERS / name / ".venv" / "bin" / argv[0]
    if not program.exists():
        tell(f"{name} is not installed: no ratio to it (bench/peers/setup.sh {name})")
        yield None
        return
    # Prices from the package, not from the network; a proxy's settings are not for loopback.
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            pinned(MEASURED_CORE, [str(program), *argv[1:]]), stdout=log, stderr=log, env=env, cwd=folder
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _opened(peer: Peer, *, timeout_s: float = 30.0) -> Peer:
    wait_until_open(peer.port, timeout_s=timeout_s)
    return peer


def wait_for_line(log: Path, beginning: str, *, timeout_s: float = 30.0) -> str:
    """The first line of a log that begins so."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(beginning):
                return line.strip()
        time.sleep(0.05)
    raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-500:]}")


def _filled(template: str, port: int, upstream: int) -> str:
    return (PEERS / template).read_text().replace("UPSTREAM", str(upstream)).replace("PORT", str(port))


def wait_until_open(port: int, *, timeout_s: float = 20.0) -> None:
    ends = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
        else:
            return
