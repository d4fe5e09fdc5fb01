"""`hf:` sources against a server that speaks the hub's routes, with its storage on another host."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import COMMIT, Hub, serve_hub
from pilothouse.adapters.sources.hf import HfSource
from pilothouse.domain.errors import ModelFileRefused, NotFound, OperationFailed
from pilothouse.ports.source import Fetched
from pilothouse.testing.conformance_source import Offer, SourceConformance
from pilothouse.testing.gguf_files import make_gguf

CONTENT = make_gguf(data_bytes=300_000)


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serve_hub(tmp_path_factory.mktemp("hub")) as served:
        yield served


class HfOffer:
    malformed = (
        "", "tiny.gguf", "org/tiny", "org/tiny/", "org/tiny@/a.gguf", "org/tiny/../a.gguf", "org/tiny/a.bin",
        "org/tiny@a b/a.gguf", "/org/tiny/a.gguf", "org/tiny/a.gguf?x",
    )  # fmt: skip
    absent = "org/nothing/a.gguf"

    def __init__(self, hub: Hub) -> None:
        self.source = hub.source()
        self._hub = hub

    def put(self, content: bytes) -> str:
        return self._hub.put(content)


class TestHfSource(SourceConformance):
    @pytest.fixture
    def offer(self, hub: Hub) -> Offer:
        return HfOffer(hub)


def fetch(source: HfSource, reference: str, folder: Path, expect: str | None = None) -> Fetched:
    folder.mkdir(exist_ok=True)
    return source.fetch(reference, folder, progress=lambda *_: None, expect=expect)


def test_the_token_goes_to_the_hub_and_never_to_its_storage(hub: Hub, tmp_path: Path) -> None:
    reference = hub.put(CONTENT)
    hub.hub.token = "hf_secret"

    fetched = fetch(hub.source("hf_secret"), reference, tmp_path / "w")

    assert fetched.path.read_bytes() == CONTENT
    assert all(headers["authorization"] == "Bearer hf_secret" for _, headers in hub.hub.requests)
    assert all("authorization" not in headers for _, headers in hub.storage.requests)


def test_the_licence_comes_from_the_card_or_the_tags(hub: Hub, tmp_path: Path) -> None:
    reference = hub.put(CONTENT)

    from_card = fetch(hub.source(), reference, tmp_path / "a").licence
    hub.facts["cardData"] = None
    hub.facts["tags"] = ["gguf", "license:mit"]
    hub.describe()

    assert (from_card, fetch(hub.source(), reference, tmp_path / "b").licence) == ("apache-2.0", "mit")


def test_a_cut_download_is_continued(hub: Hub, tmp_path: Path) -> None:
    reference = hub.put(CONTENT)
    hub.storage.cuts = [100_000, 100_000]

    assert fetch(hub.source(), reference, tmp_path / "w").path.read_bytes() == CONTENT
    assert [headers.get("range") for _, headers in hub.storage.requests] == [
        None,
        "bytes=100000-",
        "bytes=200000-",
    ]


def test_a_file_that_is_not_what_the_hub_promises_is_refused(hub: Hub, tmp_path: Path) -> None:
    reference = hub.put(CONTENT)
    hub.storage.files["/store/tiny.gguf"] = CONTENT[:-1] + b"!"

    with pytest.raises(ModelFileRefused, match="another file"):
        fetch(hub.source(), reference, tmp_path / "w")


def test_a_branch_that_moved_since_the_first_pull_is_refused_before_the_download(
    hub: Hub, tmp_path: Path
) -> None:
    reference = hub.put(CONTENT)

    with pytest.raises(ModelFileRefused, match="another file"):
        fetch(hub.source(), reference, tmp_path / "w", expect="sha256:" + "0" * 64)
    assert hub.storage.requests == []


@pytest.mark.parametrize(
    ("denial", "token", "told"),
    [
        ((401, {"X-Error-Code": "GatedRepo"}), "", "org/tiny is gated: its owner wants his terms accepted"),
        ((403, {"X-Error-Code": "GatedRepo"}), "hf_other", "is gated"),
        ((401, {}), "", "private, or does not exist (HTTP 401; no token is set)"),
        ((401, {}), "hf_other", "the token is not accepted"),
    ],
)
def test_what_is_gated_or_private_is_told_with_what_to_do(
    hub: Hub, tmp_path: Path, denial: tuple[int, dict[str, str]], token: str, told: str
) -> None:
    reference = hub.put(CONTENT)
    hub.hub.token, hub.hub.denial = "hf_right", denial

    with pytest.raises(OperationFailed) as refused:
        fetch(hub.source(token), reference, tmp_path / "w")

    assert told in str(refused.value)
    assert "--set hf_token=file:PATH" in str(refused.value)
    assert "hf_other" not in str(refused.value)


def test_a_mistyped_file_is_told_with_the_nearest(hub: Hub, tmp_path: Path) -> None:
    hub.put(CONTENT, "tiny-q4_k_m.gguf")

    with pytest.raises(NotFound, match="did you mean 'tiny-q4_k_m"):
        fetch(hub.source(), "org/tiny/tiny-q4_k.gguf", tmp_path / "w")


def test_a_commit_is_fixed_and_a_branch_is_not(hub: Hub) -> None:
    source = hub.source()

    assert source.identify(f"org/tiny@{COMMIT}/a.gguf").is_fixed
    assert not source.identify("org/tiny/Sub/My Model".replace(" ", "") + ".gguf").is_fixed
    assert source.identify("org/tiny@v1/sub/My-Model.gguf").name == "my-model"


def test_a_server_that_is_no_hub_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.hub.files["/api/models/org/tiny/revision/main?blobs=true"] = b"<html>"

    with pytest.raises(OperationFailed, match="does not answer as the hub does"):
        fetch(hub.source(), "org/tiny/a.gguf", tmp_path / "w")
