"""
What every Source does, wherever it fetches from.

Subclass `SourceConformance` in a test file and give it the fixture `offer`: an
`Offer` that makes a source and references to content of the test's choice.
"""

from pathlib import Path
from typing import Protocol

import pytest

from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound
from pilothouse.domain.model_name import check_name
from pilothouse.ports.source import Source
from pilothouse.testing.gguf_files import make_gguf

OTHER_DIGEST = "sha256:" + "0" * 64


class Offer(Protocol):
    source: Source
    malformed: tuple[str, ...]
    """References that mean nothing."""
    absent: str
    """A reference to nothing."""

    def put(self, content: bytes) -> str:
        """Make the source deliver a file of this content; return its reference."""
        ...


class Stop(Exception):
    """Raised by a progress function that wants no more."""


class Watched:
    """A progress function that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.calls.append((what, done, total))


class SourceConformance:
    content = make_gguf(data_bytes=50_000)

    def test_it_delivers_the_file_into_the_folder(self, offer: Offer, tmp_path: Path) -> None:
        workdir = _folder(tmp_path)

        fetched = offer.source.fetch(offer.put(self.content), workdir, progress=Watched(), expect=None)

        assert fetched.path.is_relative_to(workdir)
        assert fetched.path.suffix == ".gguf"
        assert fetched.path.read_bytes() == self.content

    def test_the_digest_is_the_same_at_each_fetch(self, offer: Offer, tmp_path: Path) -> None:
        reference = offer.put(self.content)
        first = offer.source.fetch(reference, _folder(tmp_path), progress=Watched(), expect=None)

        again = offer.source.fetch(
            reference, _folder(tmp_path), progress=Watched(), expect=first.source_digest
        )

        assert again.source_digest == first.source_digest
        assert len(first.source_digest) == len(OTHER_DIGEST)

    def test_another_digest_than_expected_is_refused(self, offer: Offer, tmp_path: Path) -> None:
        workdir = _folder(tmp_path)

        with pytest.raises(ModelFileRefused, match=r"sha256:0000"):
            offer.source.fetch(offer.put(self.content), workdir, progress=Watched(), expect=OTHER_DIGEST)

        assert not list(workdir.rglob("*.part"))

    def test_progress_ends_with_all_bytes(self, offer: Offer, tmp_path: Path) -> None:
        progress = Watched()

        offer.source.fetch(offer.put(self.content), _folder(tmp_path), progress=progress, expect=None)

        what, done, total = progress.calls[-1]
        assert what
        assert done == total == len(self.content)

    def test_a_progress_function_that_raises_ends_the_work(self, offer: Offer, tmp_path: Path) -> None:
        def stop(_what: str, _done: int, _total: int) -> None:
            raise Stop

        with pytest.raises(Stop):
            offer.source.fetch(offer.put(self.content), _folder(tmp_path), progress=stop, expect=None)

    @pytest.mark.parametrize("content", [b"\x80\x04}\x94." + b"x" * 600, b"", b"<html>" + b" " * 600])
    def test_what_is_not_a_model_is_refused(self, offer: Offer, content: bytes, tmp_path: Path) -> None:
        with pytest.raises(ModelFileRefused):
            offer.source.fetch(offer.put(content), _folder(tmp_path), progress=Watched(), expect=None)

    def test_what_is_not_there_is_not_found(self, offer: Offer, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            offer.source.fetch(offer.absent, _folder(tmp_path), progress=Watched(), expect=None)

    def test_a_malformed_reference_is_refused_at_once(self, offer: Offer, tmp_path: Path) -> None:
        for reference in offer.malformed:
            with pytest.raises(InvalidRequest):
                offer.source.identify(reference)
            with pytest.raises(InvalidRequest):
                offer.source.fetch(reference, _folder(tmp_path), progress=Watched(), expect=None)

    def test_the_name_that_it_proposes_can_be_used(self, offer: Offer) -> None:
        identity = offer.source.identify(offer.put(self.content))

        assert check_name(identity.name) == identity.name


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    return folder
