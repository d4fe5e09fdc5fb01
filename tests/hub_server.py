"""The hub's two routes and its storage on another host, for tests: what `hf:` sources ask for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from file_server import FileServer, lookup_loopback, serve_files
from pilothouse.adapters.sources._connection import Network
from pilothouse.adapters.sources._download import Downloader
from pilothouse.adapters.sources.hf import HfSource
from pilothouse.kit.secret import Secret

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A repository `org/tiny`, whose large files lie on `storage` behind a redirect."""

    def __init__(self, hub: FileServer, storage: FileServer, network: Network) -> None:
        self.hub, self.storage, self.network = hub, storage, network
        self.facts: dict[str, object] = {
            "sha": COMMIT,
            "cardData": {"license": "apache-2.0"},
            "siblings": [{"rfilename": "README.md", "size": 3, "blobId": "aa"}],
        }

    def put(self, content: bytes, name: str = "tiny.gguf") -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        lfs = {"sha256": sha256, "size": len(content), "pointerSize": 134}
        self.facts["siblings"] = [
            {"rfilename": "README.md", "size": 3, "blobId": "aa"},
            {"rfilename": name, "size": len(content), "blobId": "bb", "lfs": lfs},
        ]
        self.storage.files[f"/store/{name}"] = content
        self.storage.etags[f"/store/{name}"] = f'"{sha256}"'
        self.hub.redirects[f"/org/tiny/resolve/{COMMIT}/{name}"] = f"{self.storage.url}/store/{name}"
        self.describe()
        return f"org/tiny/{name}"

    def describe(self) -> None:
        body = json.dumps(self.facts).encode()
        for revision in ("main", "v1", COMMIT):
            self.hub.files[f"/api/models/org/tiny/revision/{revision}?blobs=true"] = body

    def source(self, token: str = "") -> HfSource:
        downloader = Downloader(self.network, sleep=lambda _s: None)
        secret = Secret(token) if token else None
        return HfSource(downloader, self.network, endpoint=self.hub.url, token=lambda: secret)


@contextmanager
def serve_hub(folder: Path) -> Iterator[Hub]:
    with serve_files(folder) as (hub, trusting), serve_files(folder) as (storage, _):
        network = Network(allow_private=True, tls=trusting, lookup=lookup_loopback, timeout_s=5)
        yield Hub(hub, storage, network)
