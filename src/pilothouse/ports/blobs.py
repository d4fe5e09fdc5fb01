"""Blobs: model files by digest."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

YOUNG_S = 3600.0
"""A blob younger than this is never collected: what refers to it may not be written down yet."""


class Blob(Struct, frozen=True):
    digest: str
    """`sha256:<64 hex digits>`"""
    bytes: int


class Blobs(Protocol):
    """Content-addressed files. Nothing is visible under a digest before all of it was verified."""

    def adopt(self, path: Path) -> Blob:
        """
        Move a complete file in, by the digest of what it holds; `path` is gone afterwards.

        What is there already under that digest is replaced by the file, for it may
        have been damaged. Interrupted, it leaves nothing visible.

        Raises:
            ModelFileRefused: Not a regular file.
            OperationFailed: The disk failed or is full.
        """
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
        Read all of it and return its path. Blocking, about a second a gigabyte.

        Raises:
            NotFound: No such blob.
            ModelFileRefused: The file no longer has that digest.
        """
        ...

    def all(self) -> list[Blob]: ...

    def collect(self, keep: Iterable[str]) -> list[Blob]:
        """Delete what is neither in `keep` nor younger than `YOUNG_S`; return what was deleted."""
        ...
