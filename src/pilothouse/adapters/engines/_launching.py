"""
What starting engines has in common: how long the context is, whether it fits, and what is known of the world.

Belongs here: arithmetic and words that are the same for all. Does not: what one engine is told.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import Artifact
from pilothouse.ports.engine import Machine

OFFLINE: Mapping[str, str] = MappingProxyType(
    {
        "HF_HOME": "{folder}",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
)
"""For engines that know the hub: nothing is ever fetched or told to anybody by one."""
_VALUE_BYTES = 4


def context_of(asked: int, artifact: Artifact, *, default: int) -> int:
    """
    Tokens of prompt and answer together.

    Args:
        asked: `engine_options.context_tokens`; 0 is the model's own, `default` at the most.

    Raises:
        OperationFailed: More is asked for than the model has, where it says what it has.
    """
    known = artifact.header.context_tokens
    if known and asked > known:
        raise OperationFailed(
            f"engine_options.context_tokens: {asked} is more than the {known} that the model has"
        )
    return asked or min(known or default, default)


def cache_bytes(artifact: Artifact, context: int) -> int:
    """Keys and values of one request, in 32 bits."""
    header = artifact.header
    return 2 * header.layers * header.kv_heads * header.head_dim * context * _VALUE_BYTES


def check_fits(need: int, machine: Machine, parts: str, *, lower: str = "") -> None:
    """
    Args:
        parts: What takes so many bytes, in words.
        lower: Options that make it less.

    Raises:
        OperationFailed: So much is not free; the message has the arithmetic.
    """
    free = machine.memory_available_bytes
    if need > free:
        raise OperationFailed(
            f"the model does not fit: {parts} take {need / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
            + (f"; lower {lower}" if lower else "")
        )


def threads_of(asked: int, machine: Machine) -> int:
    """`engine_options.threads`; by default one less than there are, for the gateway's sake."""
    return asked or max(1, machine.cpus - 1)


def world(threads: int, **more: str) -> dict[str, str]:
    """
    The whole environment of a process that nothing is handed down to.

    Args:
        threads: Of its arithmetic; 0 leaves them to it.
    """
    arithmetic = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "HOME": "{folder}",
        "TMPDIR": "{folder}",
        "TOKENIZERS_PARALLELISM": "false",
        **arithmetic,
        **more,
    }
