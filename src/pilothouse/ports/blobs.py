"""Blobs: model files by digest."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from msgspec import Struct


class Blob(Struct, frozen=True):
    digest: str
    """`sha256:<64 hex digits>`"""
    bytes: int


class Blobs(Protocol):
    """Content-addressed files. Nothing is visible under a digest before all of it was verified."""

    def adopt(self, path: Path) -> Blob:
        """Move a complete file in, by the digest of what it holds."""
        ...

    def path(self, digest: str) -> Path:
        """
        Where the blob lies, without reading it.

        Raises:
            NotFound: No such blob.
        """
        ...

    def verify(self, digest: str) -> Path:
        """
        Read all of it and return its path.

        Raises:
            NotFound: No such blob.
            ModelFileRefused: The file no longer has that digest.
        """
        ...

    def all(self) -> list[Blob]: ...

    def collect(self, keep: Iterable[str]) -> list[Blob]:
        """Delete what is not in `keep` and not younger than an hour; return what was deleted."""
        ...
