"""A real Redis or Valkey server in a folder of its own, where one is installed."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")
MISSING = "no redis-server or valkey-server is installed; fix: apt-get install redis-server"


@dataclass
class RedisServer:
    """One that runs: `url` reaches it by its private socket, `port` by TCP."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/r.sock"


@contextmanager
def redis_server(folder: Path, *, password: str = "") -> Iterator[RedisServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    secret = ("--requirepass", password) if password else ()
    argv = [
        str(BINARY), "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", f"{folder}/r.sock",
        "--dir", str(folder), "--save", "", "--appendonly", "no", *secret,
    ]  # fmt: skip
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            ends = time.monotonic() + 10
            while True:
                try:
                    with socket.socket(socket.AF_UNIX) as door:  # made after the TCP one
                        door.connect(f"{folder}/r.sock")
                    break
                except OSError:
                    assert time.monotonic() < ends, "redis-server does not answer"
                    assert process.poll() is None, "redis-server ended"
                    time.sleep(0.01)
            yield RedisServer(folder, port, process)
        finally:
            process.kill()
