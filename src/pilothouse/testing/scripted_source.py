"""A source whose files are written in the test."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound
from pilothouse.domain.model_file import another_file, why_not_gguf
from pilothouse.domain.model_name import clean_name
from pilothouse.ports.source import Fetched, Identity, Progress


class ScriptedSource:
    """
    A fake of `ports.source.Source`, scheme `scripted`: delivers what `files` holds, by reference.

    A reference is a plain name like `tiny`. `fetches` counts; `before` is called at
    the beginning of each fetch, and may block or raise.
    """

    scheme = "scripted"

    def __init__(
        self, files: Mapping[str, bytes], *, licence: str = "", before: Callable[[], None] | None = None
    ) -> None:
        self.files = dict(files)
        self.licence = licence
        self.fetches = 0
        self._before = before

    def identify(self, reference: str) -> Identity:
        if not reference.replace("-", "").isalnum():
            raise InvalidRequest(f"{reference!r} is not the name of a scripted file", param="source")
        return Identity(name=clean_name(reference), version="1", is_fixed=True)

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        self.identify(reference)
        self.fetches += 1
        if self._before:
            self._before()
        if reference not in self.files:
            raise NotFound(f"nothing is scripted for {reference}")
        content = self.files[reference]
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if expect and digest != expect:
            raise another_file(reference, found=digest, expected=expect)
        if fault := why_not_gguf(content):
            raise ModelFileRefused(f"{reference} is {fault}")
        path = workdir / "model.gguf"
        progress(reference, len(content), len(content))
        path.write_bytes(content)
        return Fetched(path=path, source_digest=digest, licence=self.licence)
