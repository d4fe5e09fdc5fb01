"""`s3:` sources against a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pilothouse.adapters.sources._connection import Network
from pilothouse.adapters.sources._download import Downloader
from pilothouse.adapters.sources.s3 import S3Source
from pilothouse.domain.errors import ModelFileRefused, OperationFailed
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.secret import Secret
from pilothouse.kit.sigv4 import SigningKey
from pilothouse.testing.conformance_source import Offer, SourceConformance
from pilothouse.testing.gguf_files import make_gguf
from weed_server import KEY, Weed, serve_s3

CONTENT = make_gguf(data_bytes=300_000)
NETWORK = Network(allow_private=True, schemes=("http",), timeout_s=10)


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with serve_s3(tmp_path_factory.mktemp("weed")) as served:
        yield served


def source(weed: Weed, key: SigningKey | None = KEY) -> S3Source:
    downloader = Downloader(NETWORK, sleep=lambda _s: None)
    return S3Source(
        downloader, NETWORK, endpoint=weed.url, region="us-east-1", key=lambda: key, now=SystemClock().now
    )


class S3Offer:
    malformed = ("", "//", "//bucket", "//bucket/", "//B/key", "//a..b/key", "//bucket/a/../b.gguf", "/b/key")
    absent = "//models/absent.gguf"

    def __init__(self, weed: Weed) -> None:
        self.source = source(weed)
        self._weed = weed

    def put(self, content: bytes) -> str:
        self._weed.put("/models/tiny.gguf", content, headers={})
        return "//models/tiny.gguf"


class TestS3Source(SourceConformance):
    @pytest.fixture
    def offer(self, weed: Weed) -> Offer:
        return S3Offer(weed)


def fetch(made: S3Source, reference: str, folder: Path, expect: str | None = None) -> bytes:
    folder.mkdir(exist_ok=True)
    return made.fetch(reference, folder, progress=lambda *_: None, expect=expect).path.read_bytes()


def test_a_key_with_odd_characters_is_found(weed: Weed, tmp_path: Path) -> None:
    weed.put("/models/my%20models/%C3%BC%2B1.gguf", CONTENT)

    assert fetch(source(weed), "//models/my models/ü+1.gguf", tmp_path / "w") == CONTENT


def test_a_part_that_is_here_is_continued(weed: Weed, tmp_path: Path) -> None:
    weed.put("/models/part.gguf", CONTENT)
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "model.gguf.part").write_bytes(CONTENT[:200_000])
    seen: list[int] = []

    fetched = source(weed).fetch(
        "//models/part.gguf", folder, progress=lambda _what, done, _total: seen.append(done), expect=None
    )

    assert fetched.path.read_bytes() == CONTENT
    assert min(done for done in seen if done) > 200_000


def test_an_object_that_is_not_what_its_metadata_promises_is_refused(weed: Weed, tmp_path: Path) -> None:
    weed.put("/models/other.gguf", CONTENT, headers={"x-amz-meta-sha256": "0" * 64})

    with pytest.raises(ModelFileRefused, match="another file"):
        fetch(source(weed), "//models/other.gguf", tmp_path / "w")


def test_an_object_that_changed_since_the_first_pull_is_refused(weed: Weed, tmp_path: Path) -> None:
    weed.put("/models/new.gguf", CONTENT)

    with pytest.raises(ModelFileRefused, match="another file"):
        fetch(source(weed), "//models/new.gguf", tmp_path / "w", expect="sha256:" + "1" * 64)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (None, "no key is set"),
        (replace(KEY, secret=Secret("wrong-secret")), "the key is wrong"),
        (replace(KEY, access_key_id="nobody"), "the key is wrong"),
    ],
)
def test_a_wrong_key_is_told_and_its_secret_is_not(
    weed: Weed, tmp_path: Path, key: SigningKey | None, told: str
) -> None:
    weed.put("/models/private.gguf", CONTENT)

    with pytest.raises(OperationFailed, match=told) as refused:
        fetch(source(weed, key), "//models/private.gguf", tmp_path / "w")

    assert "wrong-secret" not in str(refused.value)


def test_a_store_that_is_not_there_is_told(weed: Weed, tmp_path: Path) -> None:
    gone = Weed(1)

    with pytest.raises(OperationFailed, match="cannot be reached"):
        fetch(source(gone), "//models/a.gguf", tmp_path / "w")
