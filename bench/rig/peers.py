"""
The peers: bare proxies that do nothing of what Pilothouse does, as a measure of the machine.

Each runs on the measured core with one thread, keeps its upstream connections
alive, and does not hold back small writes.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rig.instruments import running
from rig.machine import MEASURED_CORE, free_port, pinned
from rig.report import tell

PEERS = Path(__file__).parents[1] / "peers"


class Peer:
    """A running proxy: where it listens, and the process to charge."""

    def __init__(self, name: str, port: int, pid: int) -> None:
        self.name, self.port, self.pid = name, port, pid


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
